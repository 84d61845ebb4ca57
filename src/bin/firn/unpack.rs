//! `firn unpack`: all files of a ramdisk.

use crate::text;
use anyhow::{Context, Result};
use clap::Args;
use firn::formats::newc::MemberKind;
use firn::formats::printable::printable;
use firn::host::interrupt;
use firn::inspect::ramdisk::Ramdisk;
use firn::inspect::unpack;
use std::path::PathBuf;

/// The arguments of `firn unpack`.
#[derive(Args)]
pub struct Unpack {
    /// Ramdisk, a unified kernel image, or a directory made by firn build
    file: PathBuf,

    /// Output directory, which must be empty or missing
    directory: PathBuf,
}

impl Unpack {
    /// Unpacks, and names the files that are left out.
    pub fn run(self) -> Result<()> {
        interrupt::listen().context("catching the signals that interrupt")?;
        let ramdisk = Ramdisk::open(&self.file)?;
        let contents = unpack::unpack(&ramdisk, &self.directory, &mut |member| {
            let reason = match member.kind {
                MemberKind::CharacterDevice | MemberKind::BlockDevice => "only root can make device nodes",
                _ => "files of this type are not unpacked",
            };
            text::complain(&format!("left out {}: {reason}", printable(&member.path)));
        })?;
        text::judge_ramdisk(&ramdisk, Some(contents))
    }
}
