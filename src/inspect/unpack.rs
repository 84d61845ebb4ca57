//! Takes members out of a ramdisk: one, or all of them into a directory.

use crate::formats::newc::{Inode, Member, MemberKind};
use crate::inspect::ramdisk::Ramdisk;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

/// Writes the contents of the file at `path` to `out`. Of several files at this path the last one counts, as for the kernel.
///
/// # Errors
///
/// A path that is not in the ramdisk or no regular file; errors of reading and of writing.
pub fn cat(ramdisk: &Ramdisk, path: &Path, out: &mut dyn Write) -> Result<()> {
    let mut found = None;
    // Of the links to a file only one has the contents, mostly the last.
    let mut filled = HashMap::new();
    let mut number = 0;
    ramdisk.walk(&mut |member, _| {
        number += 1;
        if member.is_linked() && member.bytes > 0 {
            filled.insert((member.segment, member.inode), number);
        }
        if member.is_at(path) {
            found = Some((number, member.clone()));
        }
        Ok(())
    })?;
    let name = format!("{} in {}", path.display(), ramdisk.path.display());
    let (place, member) = found.with_context(|| format!("there is no {name}; firn ls shows its files"))?;
    match (member.kind, &member.target) {
        (MemberKind::File, _) => {}
        (_, Some(target)) => bail!("{name} is a symbolic link to {}; name that file", target.display()),
        (MemberKind::Directory, _) => bail!("{name} is a directory; name a file in it"),
        _ => bail!("{name} is no regular file and has no contents"),
    }
    let linked = filled.get(&(member.segment, member.inode)).filter(|_| member.is_linked());
    let mut left: i64 = *linked.unwrap_or(&place);
    ramdisk.walk(&mut |_, contents| {
        left -= 1;
        if left == 0 {
            io::copy(contents, out)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Unpacks a ramdisk into a directory that is empty or does not exist. Only root gets the owners and the device nodes. `skipped`
/// gets each member that is left out.
///
/// # Errors
///
/// A directory that is not empty; a member that would be outside of the directory; errors of reading and of writing. Files that
/// were unpacked before stay.
pub fn unpack(ramdisk: &Ramdisk, directory: &Path, skipped: &mut dyn FnMut(&Member)) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making the directory {}", directory.display()))?;
    let mut entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    ensure!(entries.next().is_none(), "{} is not empty; give a new directory", directory.display());
    let mut target = UnpackTarget {
        directory,
        links: HashMap::new(),
        directories: Vec::new(),
        root: rustix::process::geteuid().is_root(),
    };
    ramdisk.walk(&mut |member, contents| {
        let made =
            target.put(member, contents).with_context(|| format!("unpacking it into {}", directory.display()))?;
        if !made {
            skipped(member);
        }
        Ok(())
    })?;
    // Only now, when their files are unpacked: they may be read-only.
    for (path, member) in target.directories.iter().rev() {
        target.set_attributes(path, member).with_context(|| format!("setting the mode of {}", path.display()))?;
    }
    Ok(())
}

/// The directory into which members are unpacked.
struct UnpackTarget<'a> {
    directory: &'a Path,
    /// Files with several links, each with the path of the first.
    links: HashMap<(usize, Inode), PathBuf>,
    /// The directories, each with the member whose attributes it gets at the end.
    directories: Vec<(PathBuf, Member)>,
    root: bool,
}

impl UnpackTarget<'_> {
    /// Makes the file of a member. False if it is left out.
    fn put(&mut self, member: &Member, contents: &mut dyn Read) -> Result<bool> {
        let path = self.place(&member.path)?;
        ensure!(
            path != self.directory || member.kind == MemberKind::Directory,
            "it would replace the directory itself"
        );
        let device = matches!(member.kind, MemberKind::CharacterDevice | MemberKind::BlockDevice);
        if member.kind == MemberKind::Unknown || member.kind == MemberKind::Socket || (device && !self.root) {
            return Ok(false);
        }
        // As in the kernel, a later member replaces an earlier one, unless both are directories.
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() && member.kind == MemberKind::Directory => {}
            Ok(found) => {
                let removed = if found.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
                removed.context("removing an earlier file of the same path")?;
                // The new file may be a symbolic link, which nothing may follow.
                self.directories.retain(|(directory, _)| *directory != path);
                self.links.retain(|_, first| *first != path);
            }
            Err(_) => {}
        }
        match member.kind {
            MemberKind::Directory => {
                fs::create_dir(&path).or_else(exists)?;
                self.directories.push((path, member.clone()));
                return Ok(true);
            }
            MemberKind::File => self.file(&path, member, contents)?,
            MemberKind::Symlink => symlink(member.target.as_deref().unwrap_or(Path::new("")), &path)?,
            _ => {
                let kind = match member.kind {
                    MemberKind::CharacterDevice => FileType::CharacterDevice,
                    MemberKind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), makedev(member.device.0, member.device.1))?;
            }
        }
        self.set_attributes(&path, member)?;
        Ok(true)
    }

    /// The path of a member below the directory. Makes the directories above it, and follows no symbolic link.
    fn place(&self, name: &Path) -> Result<PathBuf> {
        let mut path = self.directory.to_owned();
        let parts: Vec<_> = name.components().filter(|part| *part != Component::CurDir).collect();
        for (number, part) in parts.iter().enumerate() {
            let Component::Normal(part) = part else {
                bail!(
                    "the path leads out of the directory; list the ramdisk with firn ls, and take single files out with firn cat"
                );
            };
            path.push(part);
            if number + 1 < parts.len() {
                match fs::symlink_metadata(&path) {
                    Ok(found) if found.is_dir() => {}
                    Ok(_) => bail!(
                        "{} is in the way and is no directory; take single files out with firn cat",
                        path.display()
                    ),
                    Err(_) => fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?,
                }
            }
        }
        Ok(path)
    }

    fn file(&mut self, path: &Path, member: &Member, contents: &mut dyn Read) -> Result<()> {
        if member.is_linked() {
            let first = self.links.entry((member.segment, member.inode)).or_insert_with(|| path.into());
            if first != path {
                fs::hard_link(first, path)?;
                if member.bytes == 0 {
                    return Ok(());
                }
            }
        }
        let mut file = create(path)?;
        io::copy(contents, &mut file)?;
        Ok(())
    }

    fn set_attributes(&self, path: &Path, member: &Member) -> io::Result<()> {
        if self.root {
            lchown(path, Some(member.user), Some(member.group))?;
        }
        let time = Timespec { tv_sec: member.time.into(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        if member.kind == MemberKind::Symlink {
            return Ok(());
        }
        // Without root the file belongs to the user, who must not own a set-user-ID program by accident.
        let bits = if self.root { 0o7777 } else { 0o1777 };
        fs::set_permissions(path, Permissions::from_mode(member.mode & bits))
    }
}

fn exists(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

/// Opens a new file, or an empty one that is linked to `path` already. A symlink is not followed.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;
    use tempfile::TempDir;

    /// A ramdisk that GNU cpio packs from the files that a script makes and whose names it prints.
    fn ramdisk(script: &str) -> (TempDir, Ramdisk) {
        let directory = tempfile::tempdir().unwrap();
        let script = format!("mkdir tree; cd tree; {{ {script}; }} | cpio --create --format=newc --quiet > ../initrd");
        let output = Command::new("sh").args(["-euc", &script]).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ramdisk = Ramdisk::open(&directory.path().join("initrd")).unwrap();
        (directory, ramdisk)
    }

    /// A member, with any path and mode.
    fn member(path: &str, mode: u32, contents: &str) -> String {
        linked(path, mode, 1, contents)
    }

    /// The same, with several links; all such members are one file.
    fn linked(path: &str, mode: u32, links: u32, contents: &str) -> String {
        let pad = |length: usize| "\0".repeat(length.next_multiple_of(4) - length);
        let (bytes, name) = (contents.len(), path.len() + 1);
        let header = format!(
            "070701{0:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{bytes:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name:08x}{0:08x}",
            0
        );
        header + path + "\0" + &pad(110 + name) + contents + &pad(bytes)
    }

    fn text(ramdisk: &Ramdisk, path: &str) -> Result<String> {
        let mut out = Vec::new();
        cat(ramdisk, Path::new(path), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn single_files() {
        let (_directory, ramdisk) = ramdisk(
            "mkdir d; echo x > d/one; ln d/one d/two; ln -s one d/link; mkfifo p; : > empty; \
             find d d/one d/two d/link p empty -maxdepth 0",
        );
        assert_eq!(text(&ramdisk, "/d/one").unwrap(), "x\n");
        assert_eq!(text(&ramdisk, "d/two").unwrap(), "x\n");
        assert_eq!(text(&ramdisk, "./empty").unwrap(), "");
        for (path, expected) in [
            ("d", "d in "),
            ("d", "is a directory; name a file"),
            ("d/link", "a symbolic link to one; name that file"),
            ("p", "no regular file"),
            ("d/three", "there is no d/three in"),
        ] {
            let error = format!("{:#}", text(&ramdisk, path).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_last_one_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("initrd");
        fs::write(&path, member("a", 0o100_644, "old") + &member("a", 0o100_600, "new")).unwrap();
        let ramdisk = Ramdisk::open(&path).unwrap();
        assert_eq!(text(&ramdisk, "a").unwrap(), "new");
        let out = directory.path().join("out");
        unpack(&ramdisk, &out, &mut |_| ()).unwrap();
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "new");
        assert_eq!(fs::metadata(out.join("a")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn links_end_with_their_archive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("initrd");
        let archive = |name: &str| linked(name, 0o100_644, 2, name) + &member("TRAILER!!!", 0, "");
        fs::write(&path, zstd::encode_all((archive("one") + &archive("two")).as_bytes(), 1).unwrap()).unwrap();
        let (ramdisk, out) = (Ramdisk::open(&path).unwrap(), directory.path().join("out"));
        unpack(&ramdisk, &out, &mut |_| ()).unwrap();
        for name in ["one", "two"] {
            assert_eq!(fs::read_to_string(out.join(name)).unwrap(), name);
            assert_eq!(text(&ramdisk, name).unwrap(), name);
        }
    }

    #[test]
    fn every_attribute_is_unpacked() {
        let (directory, ramdisk) = ramdisk(
            "mkdir d; echo x > d/one; ln d/one d/two; ln -s /nowhere d/link; mkfifo p; chmod 4711 d/one; touch -d @99 d/one d; \
             chmod 555 d; find . | sort",
        );
        let out = directory.path().join("out");
        unpack(&ramdisk, &out, &mut |member| panic!("{member:?}")).unwrap();
        let one = fs::metadata(out.join("d/one")).unwrap();
        assert_eq!((one.ino(), one.nlink(), one.mtime()), (fs::metadata(out.join("d/two")).unwrap().ino(), 2, 99));
        assert_eq!(fs::read_to_string(out.join("d/one")).unwrap(), "x\n");
        let difference = Command::new("diff")
            .arg("-r")
            .arg("--no-dereference")
            .args([directory.path().join("tree/d"), out.join("d")])
            .output()
            .unwrap();
        assert!(difference.status.success(), "{difference:?}");
        assert_eq!(fs::metadata(out.join("d")).unwrap().mode() & 0o7777, 0o555);
        assert_eq!(fs::metadata(out.join("d")).unwrap().mtime(), 99);
        assert_eq!(fs::read_link(out.join("d/link")).unwrap(), Path::new("/nowhere"));

        let error = unpack(&ramdisk, &out, &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
    }

    #[test]
    fn a_symlink_in_the_place_of_a_file_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let (victim, link) = (directory.path().join("victim"), directory.path().join("link"));
        fs::write(&victim, "untouched").unwrap();
        symlink(&victim, &link).unwrap();
        create(&link).unwrap_err();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        create(&victim).unwrap();
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::set_permissions(&victim, Permissions::from_mode(0o700)).unwrap();
        let to_victim = member("a", 0o120_777, victim.to_str().unwrap());
        for (number, (archive, expected)) in [
            (member("../victim/x", 0o100_644, "x"), "leads out of the directory"),
            (member("a/../../victim/x", 0o100_644, "x"), "leads out of the directory"),
            (member(&format!("{}/x", victim.display()), 0o100_644, "x"), "leads out of the directory"),
            (to_victim.clone() + &member("a/x", 0o100_644, "x"), "is in the way and is no directory"),
            (member(".", 0o100_644, "x"), "replace the directory itself"),
            (member("a", 0o040_777, "") + &to_victim, ""),
            (to_victim.clone() + &member("a", 0o100_644, "x"), ""),
            (linked("a", 0o100_644, 2, "") + &to_victim + &linked("b", 0o100_777, 2, ""), ""),
        ]
        .into_iter()
        .enumerate()
        {
            let path = directory.path().join("initrd");
            fs::write(&path, archive).unwrap();
            let result =
                unpack(&Ramdisk::open(&path).unwrap(), &directory.path().join(number.to_string()), &mut |_| ());
            match result {
                Ok(()) => assert_eq!(expected, "", "{number}"),
                Err(error) => assert!(format!("{error:#}").contains(expected) && !expected.is_empty(), "{error:#}"),
            }
            assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
            assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o700, "{number}");
        }
    }
}
