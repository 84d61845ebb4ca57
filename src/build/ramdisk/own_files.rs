//! The files of firn in a ramdisk with ready-made segments: the kernel has to make each of them, and a segment behind them may replace
//! only some of them, by files of the same type.

use crate::contract::plan::{Image, PATH, Plan};
use crate::formats::cpio::{Node, Tree};
use crate::formats::newc::MemberKind;
use crate::formats::printable::printable;
use crate::formats::ramdisk::Contents;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// The first program, which the kernel starts.
const INIT: &str = "/init";

/// The most bytes of a plan that are read.
const LONGEST_PLAN: u64 = 64 << 20;

/// The paths of firn's files and their types.
#[derive(Debug)]
pub struct OwnFiles(Vec<(PathBuf, MemberKind)>);

impl OwnFiles {
    /// Adds firn's own archive to the ramdisk so far.
    ///
    /// # Errors
    ///
    /// A file that the kernel does not make as it is in the archive.
    pub fn add(archive: &[u8], ramdisk: &mut Contents) -> Result<Self> {
        let first: usize = ramdisk.segments.iter().map(|segment| segment.members).sum();
        let mut files = Vec::new();
        ramdisk.warnings.clear();
        ramdisk.read(Cursor::new(archive), &mut |member, _| {
            files.push((Path::new("/").join(&member.path), member.kind));
            Ok(())
        })?;
        if let Some(stop) = &ramdisk.stop {
            bail!("{stop}");
        }
        if let Some(warning) = ramdisk.warnings.first() {
            let name = Path::new("/").join(warning.name.as_deref().unwrap_or(Path::new("")));
            bail!(in_the_way(&name, &warning.reason));
        }
        for (number, (path, kind)) in (first..).zip(&files) {
            let right = ramdisk.tree.find(path).is_some_and(|found| {
                found.kind == *kind && (found.kind != MemberKind::File || found.contents == number)
            });
            ensure!(right, in_the_way(path, "it becomes a link to another file"));
        }
        Ok(Self(files))
    }

    /// Makes sure that stage 1 still finds the files behind a ready-made segment. `plan` is the text of the plan that the segment has.
    ///
    /// # Errors
    ///
    /// A file that is gone, or in whose place there is one that does not work.
    pub fn check(&self, plan: Option<&str>, ramdisk: &mut Contents) -> Result<()> {
        for (path, kind) in self.0.iter().filter(|(_, kind)| *kind != MemberKind::Symlink) {
            let name = printable(path);
            let Some(found) = ramdisk.tree.follow(path) else {
                let reason = match ramdisk.tree.find(path) {
                    Some(_) => "is a symbolic link that leads to no file",
                    None => "is gone",
                };
                bail!("{name} of firn {reason} behind this segment; leave {name} out of it");
            };
            ensure!(
                found.kind == *kind,
                "its {name} takes the place of firn's, which is a {}, and is a {}; leave it out",
                words(*kind),
                words(found.kind)
            );
            ensure!(
                path != Path::new(INIT) || found.mode & 0o111 != 0,
                "its {name} takes the place of firn's and has the mode {:04o}, and the kernel starts only an executable file; set its mode to \
                 0755, or leave it out",
                found.mode & 0o7777
            );
        }
        if let Some(plan) = plan {
            Plan::from_json(plan).with_context(|| {
                format!("its {PATH} takes the place of firn's, and stage 1 cannot read it; leave it out")
            })?;
        }
        Ok(())
    }

    /// Makes sure that the kernel can unpack the store images.
    ///
    /// # Errors
    ///
    /// An image of which the kernel makes no file.
    pub fn check_images(images: &[Image], ramdisk: &mut Contents) -> Result<()> {
        let mut tree = Tree::default();
        for image in images {
            tree.add(&image.path, Node::File { mode: 0o444, contents: Vec::new() });
        }
        let mut archive = Vec::new();
        tree.write(&mut archive)?;
        Self::add(&archive, ramdisk).map(drop)
    }
}

/// Reads a plan, whose text may be no plan.
///
/// # Errors
///
/// Those of reading.
pub fn read_plan(contents: &mut dyn Read) -> Result<String> {
    let mut text = Vec::new();
    contents.take(LONGEST_PLAN).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn in_the_way(path: &Path, reason: &str) -> String {
    let name = printable(path);
    format!(
        "then the kernel makes no {name} of firn: {reason}; leave {name} and all files in its way out of the segment"
    )
}

fn words(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::File => "regular file",
        MemberKind::Directory => "directory",
        MemberKind::Symlink => "symbolic link",
        MemberKind::CharacterDevice => "character device",
        MemberKind::BlockDevice => "block device",
        MemberKind::Pipe => "named pipe",
        MemberKind::Socket => "socket",
        MemberKind::Unknown => "file of an unknown type",
    }
}
