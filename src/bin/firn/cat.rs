//! `firn cat`: the contents of a file in a ramdisk.

use crate::text;
use anyhow::Result;
use clap::Args;
use firn::inspect::ramdisk::Ramdisk;
use firn::inspect::unpack;
use std::path::PathBuf;

const NOTE: &str = "\
Into a pipe or a file the contents go as they are. On a terminal, control characters in a text are escaped, and a file that is no text
is refused.";

/// The arguments of `firn cat`.
#[derive(Args)]
#[command(after_help = NOTE)]
pub struct Cat {
    /// Ramdisk, a unified kernel image, or a directory made by firn build
    file: PathBuf,

    /// Path of a file in the ramdisk, as firn ls prints it
    path: PathBuf,
}

impl Cat {
    /// Prints the file.
    pub fn run(self) -> Result<()> {
        let ramdisk = Ramdisk::open(&self.file)?;
        let mut contents = None;
        text::print_contents(|out| {
            contents = Some(unpack::cat(&ramdisk, &self.path, out)?);
            Ok(())
        })?;
        text::judge_ramdisk(&ramdisk, contents)
    }
}
