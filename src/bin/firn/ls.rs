//! `firn ls`: the files of a ramdisk.

use crate::text;
use anyhow::Result;
use clap::Args;
use firn::formats::newc::{Member, MemberKind};
use firn::formats::printable::{printable, printable_json};
use firn::inspect::ramdisk::Ramdisk;
use std::path::PathBuf;

/// The arguments of `firn ls`.
#[derive(Args)]
pub struct Ls {
    /// Ramdisk, a unified kernel image, or a directory made by firn build
    file: PathBuf,

    /// Print a JSON object for each file, with its segment and its offset in the ramdisk
    #[arg(long)]
    json: bool,
}

impl Ls {
    /// Prints a line for each file that the kernel makes, as soon as it is read, and warnings at the end.
    pub fn run(self) -> Result<()> {
        let ramdisk = Ramdisk::open(&self.file)?;
        let mut contents = None;
        text::print(|out| {
            contents = Some(ramdisk.walk(&mut |member, _| {
                let line = if self.json { printable_json(&serde_json::to_string(member)?) } else { line(member) };
                Ok(writeln!(out, "{line}")?)
            })?);
            Ok(())
        })?;
        text::judge_ramdisk(&ramdisk, contents)
    }
}

/// A file as `ls -ln` prints it, without the time.
fn line(member: &Member) -> String {
    let size = match member.kind {
        MemberKind::CharacterDevice | MemberKind::BlockDevice => format!("{}, {}", member.device.0, member.device.1),
        _ => member.bytes.to_string(),
    };
    let target = member.target.as_ref().map(|target| format!(" -> {}", printable(target)));
    format!(
        "{} {:>2} {:>4} {:>4} {size:>12} {}{}",
        member.mode_letters(),
        member.links,
        member.user,
        member.group,
        printable(&member.path),
        target.unwrap_or_default()
    )
}
