//! The files of a host, such as keys, a machine id and network files. They come in a cpio archive that is appended to the ramdisk, below
//! [`FILES`], and stage 1 copies them to the same paths in the new root. So one store image serves many hosts.
//!
//! The rules are those of `cp -a --keep-directory-symlink`, inside of the new root: an existing directory keeps its mode, a symlink to a
//! directory is followed, and everything else is replaced. A file that cannot be copied is a warning with its path and the reason, and
//! the boot goes on with the other files.
//!
//! The files of [`SECRETS`] are copied with the same rules, but into the initramfs.

mod directory;
mod modes;
mod node;
mod of_others;
mod of_system;
#[cfg(test)]
mod tests;

use crate::boot::console::{consoles, kmsg};
use crate::boot::etc::InPlace;
use crate::boot::store::NewRoot;
use crate::boot::system::System;
use crate::contract::plan::{FILE_DIRECTORIES, FILES};
use anyhow::{Error, Result, bail};
use directory::Directory;
use of_system::EtcOfSystem;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// The directory of NixOS' `boot.initrd.secrets` in the ramdisk. They are for stage 1 alone.
const SECRETS: &str = "/.initrd-secrets";

/// The number of files that this step may have open: two for each level of directories. The kernel unpacks names of at most 4,096 bytes,
/// so at most 2,043 levels; each needs about 2 KiB of the 8 MiB of stack. What is deeper is a warning.
const OPEN_FILES: u64 = 4200;

/// The number of warnings that the log gets. All are in the report on the boot.
const LOGGED: usize = 20;

/// The size of the buffer for the entries of a directory, bytes: several of the longest names (255 bytes).
const BUFFER: usize = 1024;

/// A symlink at the end of the path is not followed.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW);

/// Copies the secrets of stage 1 to their paths in the initramfs, as NixOS' stage 1 does as soon as `/run` is mounted (nixpkgs,
/// `nixos/modules/system/boot/systemd/initrd-secrets.nix`). They are deleted with the initramfs. Only those below `/run` and `/dev` are
/// also in the running system, since it gets these mounts. Failures are warnings, as for [`copy`].
pub fn copy_secrets() {
    if let Err(error) = copy_from(SECRETS, None, None) {
        log::warn!("Copying the files below {SECRETS}: {error:#}");
    }
}

/// Copies the files of the host into the new root, with their modes, owners and times, and replaces existing files. A ramdisk without
/// such files is fine. Files that are not copied are warnings, and the consoles show the first one.
///
/// # Errors
///
/// As for [`NewRoot::inside`].
pub fn copy(root: &NewRoot, _etc: &InPlace, system: &System) -> Result<()> {
    of_others::adopt();
    // Activation puts nothing into an overlay for /etc.
    let toplevel = system.toplevel.as_deref().filter(|_| system.config.etc_overlay.is_none());
    copy_from(FILES, Some(root), toplevel)
}

/// Copies the files below `source` into `root`, or else into the initramfs. `toplevel`: the system whose activation fills `/etc`.
fn copy_from(source: &str, root: Option<&NewRoot>, toplevel: Option<&str>) -> Result<()> {
    let mut walk = Walk { of_host: root.is_some(), etc: EtcOfSystem { toplevel }, ..Walk::default() };
    match open(CWD, &CString::new(source)?, OFlags::DIRECTORY) {
        Ok(directory) => {
            let mut copy = || walk.copy_all(source, &directory);
            match root {
                Some(root) => root.inside(copy)?,
                None => copy()?,
            }
        }
        Err(Errno::NOENT) => {}
        Err(errno) => walk.not_copied(source, &errno.into()),
    }
    if let Some(first) = walk.warnings.first() {
        consoles::say(&format!("\n  firn-init: {first}. /run/firn/boot.json has all warnings about these files.\n\n"));
    }
    if let Some(more) = walk.warnings.len().checked_sub(LOGGED).filter(|more| *more > 0) {
        log::warn!("{more} more warnings about these files are in /run/firn/boot.json only");
    }
    Ok(())
}

/// The state of the step.
#[derive(Default)]
struct Walk<'a> {
    /// The number of copied files.
    copied: usize,
    warnings: Vec<String>,
    /// Whether the files are for the running system.
    of_host: bool,
    etc: EtcOfSystem<'a>,
}

impl Walk<'_> {
    /// Copies all files of the open directory `from` to `/`. `from` is an open descriptor because it is in the initramfs, outside of the
    /// root of this process.
    fn copy_all(&mut self, source: &str, from: &OwnedFd) -> Result<()> {
        let before = getrlimit(Resource::Nofile);
        let maximum = before.maximum.map(|maximum| maximum.max(OPEN_FILES));
        // Refused to a process without CAP_SYS_RESOURCE. Then fewer levels can be copied.
        setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_FILES), maximum }).unwrap_or_default();
        self.copy_below(from, &Directory::root(open(CWD, c"/", DIRECTORY)?));
        setrlimit(Resource::Nofile, before).unwrap_or_default();
        if self.copied > 0 {
            log::info!("Copied {} files from {source}", self.copied);
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
            if let (true, Some(Some(target))) = (self.of_host && modes::has_keys_of_users(name), directory.opened.get())
            {
                // sshd also looks at the home of the user, or at /etc/ssh.
                for (name, path) in [(c".", path), (c"..", &*to.path)] {
                    self.warnings_of(modes::around_keys(path, &statat(target, name, AtFlags::empty())?));
                }
            }
        } else if let Some(target) = self.enter(to) {
            self.place(from, name, path, &status, target)?;
            self.copied += 1;
            if self.of_host {
                self.warnings_of(modes::of_file(to.name, name, path, &status));
            }
        }
        Ok(())
    }

    /// Copies a file. If activation would replace it, a mount of the file on itself keeps it in its place, for a later activation, too.
    fn place(&mut self, from: BorrowedFd<'_>, name: &CStr, path: &str, status: &Stat, to: &OwnedFd) -> Result<()> {
        if self.of_host && path.starts_with("/etc/") {
            node::unmount(path);
        }
        let read_only = match node::copy(from, name, status, to) {
            Ok(()) => match self.etc.replaces(path) {
                Ok(true) => false,
                // Only a symlink to a directory can take the place of a directory.
                Err(errno) if open(to.as_fd(), name, OFlags::DIRECTORY).is_err() => {
                    unlinkat(to, name, AtFlags::empty())?;
                    bail!(errno);
                }
                _ => return Ok(()),
            },
            // An /etc that is immutable, where a mount can take the place of a file.
            Err(Errno::ROFS) => true,
            Err(errno) => bail!(errno),
        };
        match node::mount(if read_only { from } else { to.as_fd() }, to, name) {
            Ok(()) => log::info!("Mounted the file of this host {path}, since the system has another one"),
            Err(_) if read_only => bail!(Errno::ROFS),
            Err(errno) => bail!(
                "the system has another one, and the mount that keeps this one fails: {errno}; remove the other one from \
                 environment.etc"
            ),
        }
        Ok(())
    }

    /// The open directory of the new root, which is made if it is missing. `None` if that fails, with one warning.
    fn enter<'d>(&mut self, directory: &'d Directory<'_>) -> Option<&'d OwnedFd> {
        let opened = directory.opened.get_or_init(|| {
            let above = self.enter(directory.above?)?;
            directory.enter(above, self.etc).map_err(|error| self.not_copied(&directory.path, &error)).ok()
        });
        opened.as_ref()
    }

    fn not_copied(&mut self, path: &str, error: &Error) {
        let advice = match error.downcast_ref::<Errno>() {
            Some(&Errno::ROFS) => {
                "; the directory of this file is read-only; if it is in /etc, let the system have a file there, too, or remove \
                 firn.etc=immutable from the kernel command line, or put the file elsewhere"
            }
            Some(&Errno::NOSPC) => {
                "; make the root larger, with firn.root.size= or firn.root.inodes= if it is in memory"
            }
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
