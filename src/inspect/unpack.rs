//! Takes members out of a ramdisk: one, or all of them into a directory.

use crate::contract::place::mark;
use crate::formats::newc::{Member, MemberKind};
use crate::formats::printable::printable;
use crate::host::interrupt::Interruptible;
use crate::inspect::ramdisk::{Contents, Ramdisk};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

#[cfg(test)]
mod tests;

/// Writes the contents that the file at `path` has in the machine to `out`. Symbolic links on the way to it are followed.
///
/// # Errors
///
/// A path that is not in the ramdisk or no regular file; errors of reading and of writing.
pub fn cat(ramdisk: &Ramdisk, path: &Path, out: &mut dyn Write) -> Result<Contents> {
    let (mut number, mut in_place) = (0, None);
    let mut contents = ramdisk.walk_all(&mut |member, is_read_in_place, _| {
        if member.is_at(path) && is_read_in_place {
            in_place = Some(number);
        }
        number += 1;
        Ok(())
    })?;
    let name = format!("{} in {}", printable(path), ramdisk.path.display());
    let found = contents.tree.find(path);
    let wanted = match found.as_ref().map(|found| (found.kind, found.contents)) {
        Some((MemberKind::File, number)) => number,
        Some((MemberKind::Directory, _)) if in_place.is_some() => in_place.unwrap_or_default(),
        Some((MemberKind::Directory, _)) => bail!("{name} is a directory; name a file in it"),
        Some((MemberKind::Symlink, _)) => {
            let target = found.map(|found| printable(&found.target)).unwrap_or_default();
            bail!("{name} is a symbolic link to {target}; name that file")
        }
        Some(_) => bail!("{name} is no regular file and has no contents"),
        None => in_place.with_context(|| format!("there is no {name}; firn ls shows its files"))?,
    };
    number = 0;
    ramdisk.walk_all(&mut |_, _, contents| {
        if number == wanted {
            io::copy(contents, out)?;
        }
        number += 1;
        Ok(())
    })?;
    Ok(contents)
}

/// Unpacks a ramdisk into a directory that is empty or does not exist, as the kernel does into its root: absolute names, `..` and
/// symbolic links begin at the directory. Only root gets the owners and the device nodes. Members that are read where they are in the
/// ramdisk become files, too: a store image takes the place of its mark. `skipped` gets each member that is left out.
///
/// # Errors
///
/// A directory that is not empty; errors of reading and of writing, after which the files that were unpacked before are removed; an
/// interrupt.
pub fn unpack(ramdisk: &Ramdisk, directory: &Path, skipped: &mut dyn FnMut(&Member)) -> Result<Contents> {
    let is_empty = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        entries => {
            entries.with_context(|| format!("reading {}; give a new directory", directory.display()))?.next().is_none()
        }
    };
    ensure!(is_empty, "{} is not empty; give a new directory", directory.display());
    let missing: Vec<_> = directory.ancestors().take_while(|path| fs::symlink_metadata(path).is_err()).collect();
    unpack_into(directory, ramdisk, skipped).map_err(|error| match clear(directory, &missing) {
        Ok(()) => error,
        Err(left) => error.context(format!("{} has a part of the ramdisk ({left}); remove it", directory.display())),
    })
}

/// Removes everything in a directory, and directories that were missing, the deepest first.
fn clear(directory: &Path, missing: &[&Path]) -> io::Result<()> {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    missing.iter().filter(|path| path.is_dir()).try_for_each(fs::remove_dir)
}

fn unpack_into(directory: &Path, ramdisk: &Ramdisk, skipped: &mut dyn FnMut(&Member)) -> Result<Contents> {
    // A file that is no ramdisk leaves no directory.
    let create =
        || fs::create_dir_all(directory).with_context(|| format!("making the directory {}", directory.display()));
    let root = rustix::process::geteuid().is_root();
    let mut target = UnpackTarget { directory, directories: HashMap::new(), root };
    let contents = ramdisk.walk_all(&mut |member, is_read_in_place, contents| {
        create()?;
        let made = target.put(member, is_read_in_place, &mut Interruptible(contents));
        let made =
            made.with_context(|| format!("unpacking {} into {}", printable(&member.path), directory.display()))?;
        if !made {
            skipped(member);
        }
        Ok(())
    })?;
    if contents.stop.is_none() {
        create()?;
    }
    // Only now, when their files are unpacked: they may be read-only. The deepest first.
    let mut directories: Vec<_> = target.directories.iter().collect();
    directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
    for (path, member) in directories {
        target.set_attributes(path, member).with_context(|| format!("setting the mode of {}", path.display()))?;
    }
    Ok(contents)
}

/// The directory into which members are unpacked.
struct UnpackTarget<'a> {
    directory: &'a Path,
    /// The directories, and the member whose attributes each gets at the end.
    directories: HashMap<PathBuf, Member>,
    root: bool,
}

impl UnpackTarget<'_> {
    /// Makes the file of a member, as the kernel does. False if it is left out.
    fn put(&mut self, member: &Member, is_read_in_place: bool, contents: &mut dyn Read) -> Result<bool> {
        let fate = &member.fate;
        if let Some(removed) = &fate.removes {
            self.remove(&self.below(removed)?)?;
        }
        if let Some((first, second)) = &fate.link {
            let (first, second) = (self.below(first)?, self.below(second)?);
            // A device that was left out has no second name, either.
            if fs::symlink_metadata(&first).is_ok() {
                self.remove(&second)?;
                fs::hard_link(first, second)?;
            }
        }
        let path = match (&fate.place, &fate.dropped) {
            (Some(place), _) => self.below(place)?,
            (None, _) if is_read_in_place => {
                // Another file may be in the way: the kernel knows nothing of this one.
                let Ok(path) = self.below(&member.path) else { return Ok(false) };
                self.remove_mark(&path)?;
                path
            }
            _ => return Ok(true),
        };
        let there = fs::symlink_metadata(&path).is_ok();
        match member.kind {
            MemberKind::Directory => {
                fs::create_dir(&path).or_else(exists)?;
                self.add_directory(path, member.clone());
                return Ok(true);
            }
            MemberKind::File => {
                let mut file = create(&path)?;
                if fate.link.is_none() || member.bytes > 0 {
                    file.set_len(0)?;
                    // Of a file that is cut off, the kernel makes all, with zeros at the end.
                    if io::copy(contents, &mut file)? < member.bytes {
                        file.set_len(member.bytes)?;
                    }
                }
            }
            // The kernel makes it all the same; symlink(2) refuses to.
            MemberKind::Symlink if member.bytes == 0 => return Ok(false),
            MemberKind::Symlink => symlink(member.target.as_deref().unwrap_or(Path::new("")), &path)?,
            MemberKind::CharacterDevice | MemberKind::BlockDevice if !self.root => return Ok(false),
            MemberKind::Unknown => return Ok(false),
            _ if there => {}
            kind => {
                let kind = match kind {
                    MemberKind::CharacterDevice => FileType::CharacterDevice,
                    MemberKind::BlockDevice => FileType::BlockDevice,
                    MemberKind::Socket => FileType::Socket,
                    _ => FileType::Fifo,
                };
                mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), makedev(member.device.0, member.device.1))?;
            }
        }
        self.set_attributes(&path, member)?;
        Ok(true)
    }

    /// The path below the directory. Makes missing directories above it: some are built into the kernel. Nothing leads out of it: the
    /// path has no symbolic links, and no file in the way is followed.
    fn below(&self, place: &Path) -> Result<PathBuf> {
        let parts = place.components().filter_map(|part| match part {
            Component::Normal(part) => Some(Ok(part)),
            Component::ParentDir => Some(Err(anyhow::anyhow!("its path leads out of the directory"))),
            _ => None,
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let mut path = self.directory.to_owned();
        for (number, part) in parts.iter().enumerate() {
            path.push(part);
            if number + 1 == parts.len() {
                break;
            }
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => bail!("{} is in the way and is no directory", path.display()),
                Err(_) => fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?,
            }
        }
        Ok(path)
    }

    /// Removes a file or an empty directory, if it is there.
    fn remove(&mut self, path: &Path) -> Result<()> {
        ensure!(path != self.directory, "it would replace the directory itself");
        let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
        let removed = if found.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        removed.context("removing an earlier file of the same path")?;
        // The new file may be a symbolic link, which nothing may follow.
        self.directories.remove(path);
        Ok(())
    }

    /// Removes the mark of a store image and its directory, so that the image can be written at this path.
    fn remove_mark(&mut self, image: &Path) -> Result<()> {
        let mark = mark(image);
        if fs::symlink_metadata(&mark).is_ok_and(|found| found.is_file()) {
            self.remove(&mark)?;
            self.remove(image)?;
        }
        Ok(())
    }

    /// Notes the attributes of a directory. The kernel sets the mode and the owner of the last member, and the time of the first.
    fn add_directory(&mut self, path: PathBuf, mut member: Member) {
        if let Some(earlier) = self.directories.get(&path) {
            member.time = earlier.time;
        }
        self.directories.insert(path, member);
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

/// Opens a file, which is new or a regular file that may be read-only. A symlink is not followed.
fn create(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    OpenOptions::new().write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW).open(path)
}
