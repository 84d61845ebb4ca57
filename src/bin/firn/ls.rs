//! `firn ls`: the files of a ramdisk.

use crate::text::{self, printable};
use anyhow::Result;
use clap::Args;
use firn::formats::newc::{Entry, Kind};
use firn::inspect::ramdisk::Ramdisk;
use std::path::PathBuf;

/// The arguments of `firn ls`.
#[derive(Args)]
pub struct Ls {
    /// Ramdisk, or a directory made by firn build
    file: PathBuf,

    /// Print a JSON object for each file, with its segment and its offset in the ramdisk
    #[arg(long)]
    json: bool,
}

impl Ls {
    /// Prints a line for each file, as soon as it is read.
    pub fn run(self) -> Result<()> {
        let ramdisk = Ramdisk::open(&self.file)?;
        text::print(|out| {
            ramdisk.walk(&mut |entry, _| {
                let line = if self.json { serde_json::to_string(entry)? } else { line(entry) };
                Ok(writeln!(out, "{line}")?)
            })?;
            Ok(())
        })
    }
}

/// A file as `ls -ln` prints it, without the time.
fn line(entry: &Entry) -> String {
    let size = match entry.kind {
        Kind::CharacterDevice | Kind::BlockDevice => format!("{}, {}", entry.device.0, entry.device.1),
        _ => entry.bytes.to_string(),
    };
    let target = entry.target.as_ref().map(|target| format!(" -> {}", printable(target)));
    format!(
        "{} {:>2} {:>4} {:>4} {size:>12} {}{}",
        entry.mode_letters(),
        entry.links,
        entry.user,
        entry.group,
        printable(&entry.path),
        target.unwrap_or_default()
    )
}
