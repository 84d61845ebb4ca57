//! `firn cat`: a file of a ramdisk.

use crate::text;
use anyhow::Result;
use clap::Args;
use firn::inspect::ramdisk::Ramdisk;
use firn::inspect::unpack;
use std::path::PathBuf;

/// The words of `firn cat`.
#[derive(Args)]
pub struct Cat {
    /// A ramdisk, or a directory that firn build made
    file: PathBuf,

    /// The path of a file in it, as firn ls shows it
    path: PathBuf,
}

impl Cat {
    /// Prints the file.
    pub fn run(self) -> Result<()> {
        let ramdisk = Ramdisk::open(&self.file)?;
        text::print(|out| unpack::cat(&ramdisk, &self.path, out))
    }
}
