//! The files of a host, such as keys, a machine id and network files. They come in a cpio archive that is appended to the ramdisk, below
//! [`SOURCES`], and stage 1 copies them to the same paths in the new root. So one store image serves many hosts.
//!
//! The rules are those of `cp -a --keep-directory-symlink`, inside of the new root: an existing directory keeps its mode, a symlink to a
//! directory is followed, and everything else is replaced. A file that cannot be copied is a warning with its path and the reason, and
//! the boot goes on with the other files.

mod directory;
mod modes;
mod node;
#[cfg(test)]
mod tests;

use crate::boot::console::{consoles, kmsg};
use crate::boot::etc::InPlace;
use crate::boot::store::NewRoot;
use crate::contract::plan::{FILE_DIRECTORIES, FILES};
use anyhow::{Error, Result};
use directory::Directory;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, statat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// The directories of these files in the ramdisk: firn's own, and the directory of NixOS' `boot.initrd.secrets`.
const SOURCES: [&str; 2] = [FILES, "/.initrd-secrets"];

/// The number of files that this step may have open: two for each level of directories. The kernel unpacks names of at most 4,096 bytes,
/// so at most 2,043 levels; each needs about 2 KiB of the 8 MiB of stack. What is deeper is a warning.
const OPEN_FILES: u64 = 4200;

/// The number of warnings that the log gets. All are in the report on the boot.
const LOGGED: usize = 20;

/// The size of the buffer for the entries of a directory, bytes: several of the longest names (255 bytes).
const BUFFER: usize = 1024;

/// A symlink at the end of the path is not followed.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW);

/// Copies the files into the new root, with their modes, owners and times, and replaces existing files. A ramdisk without such files is
/// fine. Files that are not copied are warnings, and the consoles show the first one.
///
/// # Errors
///
/// As for [`NewRoot::inside`].
pub fn copy(root: &NewRoot, _etc: &InPlace) -> Result<()> {
    let mut walk = Walk::default();
    for source in SOURCES {
        match open(CWD, &CString::new(source)?, OFlags::DIRECTORY) {
            Ok(directory) => root.inside(|| walk.copy_all(source, &directory))?,
            Err(Errno::NOENT) => {}
            Err(errno) => walk.not_copied(source, &errno.into()),
        }
    }
    if let Some(first) = walk.warnings.first() {
        consoles::say(&format!(
            "\n  firn-init: {first}. /run/firn/boot.json has all warnings about the files of this host.\n\n"
        ));
    }
    if let Some(more) = walk.warnings.len().checked_sub(LOGGED).filter(|more| *more > 0) {
        log::warn!("{more} more warnings about the files of this host are in /run/firn/boot.json only");
    }
    Ok(())
}

/// The state of the step.
#[derive(Default)]
struct Walk {
    /// The number of copied files.
    copied: usize,
    warnings: Vec<String>,
}

impl Walk {
    /// Copies all files of the open directory `from` to `/`. `from` is an open descriptor because it is in the initramfs, outside of the
    /// root of this process.
    fn copy_all(&mut self, source: &str, from: &OwnedFd) -> Result<()> {
        let before = getrlimit(Resource::Nofile);
        let maximum = before.maximum.map(|maximum| maximum.max(OPEN_FILES));
        // Refused to a process without CAP_SYS_RESOURCE. Then fewer levels can be copied.
        setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_FILES), maximum }).unwrap_or_default();
        let copied = self.copied;
        self.copy_below(from, &Directory::root(open(CWD, c"/", DIRECTORY)?));
        setrlimit(Resource::Nofile, before).unwrap_or_default();
        if self.copied > copied {
            log::info!("Copied {} files from {source}", self.copied - copied);
        }
        Ok(())
    }

    fn copy_below(&mut self, from: &OwnedFd, to: &Directory<'_>) {
        // On the stack: every ramdisk has the directories of the builder, and a heap buffer for each would cost more than the rest.
        let mut buffer = [const { MaybeUninit::uninit() }; BUFFER];
        let mut entries = RawDir::new(&from, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return self.not_copied(&to.path, &errno.into()),
            };
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let path = to.path_of(name);
                if let Err(error) = self.copy_one(from.as_fd(), name, &path, to) {
                    self.not_copied(&path, &error);
                }
            }
        }
    }

    fn copy_one(&mut self, from: BorrowedFd<'_>, name: &CStr, path: &str, to: &Directory<'_>) -> Result<()> {
        let status = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            let source = open(from, name, DIRECTORY)?;
            let directory = Directory::below(to, name, path, status);
            // Those of the builder are in every ramdisk. They are made only for the files in them.
            if !FILE_DIRECTORIES.contains(&path) {
                self.enter(&directory);
            }
            self.copy_below(&source, &directory);
            if let (true, Some(Some(target))) = (modes::has_keys_of_users(name), directory.opened.get()) {
                // sshd also looks at the home of the user, or at /etc/ssh.
                for (name, path) in [(c".", path), (c"..", &*to.path)] {
                    self.warnings_of(modes::around_keys(path, &statat(target, name, AtFlags::empty())?));
                }
            }
        } else if let Some(target) = self.enter(to) {
            node::copy(from, name, &status, target)?;
            self.copied += 1;
            self.warnings_of(modes::of_file(to.name, name, path, &status));
        }
        Ok(())
    }

    /// The open directory of the new root, which is made if it is missing. `None` if that fails, with one warning.
    fn enter<'d>(&mut self, directory: &'d Directory<'_>) -> Option<&'d OwnedFd> {
        let opened = directory.opened.get_or_init(|| {
            let above = self.enter(directory.above?)?;
            directory.enter(above).map_err(|error| self.not_copied(&directory.path, &error)).ok()
        });
        opened.as_ref()
    }

    fn not_copied(&mut self, path: &str, error: &Error) {
        let advice = match error.downcast_ref::<Errno>() {
            Some(&Errno::ROFS) => {
                "; the directory of this file is read-only; if it is in /etc, remove firn.etc=immutable from the kernel command \
                 line, or put the file elsewhere"
            }
            Some(&Errno::NOSPC) => "; make the root larger, with firn.root.size= if it is in memory",
            Some(&Errno::ISDIR) => "; a directory is in the way; remove it, or put the file elsewhere",
            _ => "",
        };
        self.warnings_of(Some(format!("Not copying {path}: {error:#}{advice}")));
    }

    fn warnings_of(&mut self, warning: Option<String>) {
        match &warning {
            Some(text) if self.warnings.len() < LOGGED => log::warn!("{text}"),
            Some(text) => kmsg::keep_warning(text),
            None => {}
        }
        self.warnings.extend(warning);
    }
}

/// Opens a directory or a regular file for reading.
fn open(at: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(at, name, flags | OFlags::CLOEXEC, Mode::empty())
}
