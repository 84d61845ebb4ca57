//! `firn cat`: the contents of a file in a ramdisk.

use crate::text;
use anyhow::Result;
use clap::Args;
use firn::inspect::ramdisk::Ramdisk;
use firn::inspect::unpack;
use std::path::PathBuf;

/// The arguments of `firn cat`.
#[derive(Args)]
pub struct Cat {
    /// Ramdisk, or a directory made by firn build
    file: PathBuf,

    /// Path of a file in the ramdisk, as firn ls prints it
    path: PathBuf,
}

impl Cat {
    /// Prints the file.
    pub fn run(self) -> Result<()> {
        let ramdisk = Ramdisk::open(&self.file)?;
        let contents = text::print_and(|out| unpack::cat(&ramdisk, &self.path, out))?;
        contents.map_or(Ok(()), |contents| text::judge_ramdisk(&ramdisk, &contents))
    }
}
