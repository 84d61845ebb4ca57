//! `firn unpack`: all that is in a ramdisk.

use anyhow::Result;
use clap::Args;
use firn::inspect::ramdisk::Ramdisk;
use firn::inspect::unpack;
use std::path::PathBuf;

/// The words of `firn unpack`.
#[derive(Args)]
pub struct Unpack {
    /// A ramdisk, or a directory that firn build made
    file: PathBuf,

    /// Where to: a directory that is empty or not there yet
    directory: PathBuf,
}

impl Unpack {
    /// Unpacks, and names what is left out.
    pub fn run(self) -> Result<()> {
        let ramdisk = Ramdisk::open(&self.file)?;
        unpack::unpack(&ramdisk, &self.directory, &mut |entry| {
            eprintln!("firn: left out, since it is a {:?} and takes root: {}", entry.kind, entry.path.display());
        })
    }
}
