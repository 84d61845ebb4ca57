//! `firn unpack`: all that is in a ramdisk.

use crate::text::printable;
use anyhow::Result;
use clap::Args;
use firn::formats::newc::MemberKind;
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
        unpack::unpack(&ramdisk, &self.directory, &mut |member| {
            let reason = match member.kind {
                MemberKind::CharacterDevice | MemberKind::BlockDevice => "only root makes device nodes",
                _ => "it is no kind of file that can be unpacked",
            };
            eprintln!("firn: left out {}: {reason}", printable(&member.path));
        })
    }
}
