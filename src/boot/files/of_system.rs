//! The files that activation puts into `/etc`: those of `<toplevel>/etc`.
//!
//! For each symlink in the directories there, activation makes a symlink or a copy at the same path in `/etc`, by rename(2), and so
//! replaces a file. It leaves a directory that has other files than its own, and then the files of its own are missing (nixpkgs,
//! `nixos/modules/system/etc/setup-etc.pl`).

use crate::boot::kernel::file;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::File;

/// The list of the files that activation copied into `/etc`, one path a line, relative to `/etc`. Those that a later system lacks are
/// removed.
const COPIED: &str = "/etc/.clean";

/// The directory `<toplevel>/etc` of a system; of no system, if its activation puts nothing into `/etc`. It is looked up in the image only
/// for files of the host below `/etc`.
#[derive(Default, Clone, Copy)]
pub struct EtcOfSystem<'a> {
    /// A store path.
    pub toplevel: Option<&'a str>,
}

impl EtcOfSystem<'_> {
    /// Whether activation replaces or removes a file at this path.
    ///
    /// # Errors
    ///
    /// `EISDIR`: the system has a directory there, and activation could not make it.
    pub fn replaces(self, path: &str) -> Result<bool, Errno> {
        match self.entry(path) {
            Some(FileType::Directory) => Err(Errno::ISDIR),
            Some(_) => Ok(true),
            None => Ok(self.toplevel.is_some() && was_copied(path)),
        }
    }

    /// The directory to which the system has a symlink at this path.
    pub fn linked(self, path: &str) -> Option<OwnedFd> {
        if self.entry(path)? == FileType::Symlink { self.directory(path) } else { None }
    }

    /// The directory of the system that is at this path after activation.
    pub fn directory(self, path: &str) -> Option<OwnedFd> {
        self.open(path, OFlags::DIRECTORY, ResolveFlags::empty())
    }

    /// The type of the file that activation deals with at this path. It does not look into the directories behind symlinks.
    fn entry(self, path: &str) -> Option<FileType> {
        let found = self.open(path, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS)?;
        fstat(found).ok().map(|status| FileType::from_raw_mode(status.st_mode))
    }

    fn open(self, path: &str, flags: OFlags, resolve: ResolveFlags) -> Option<OwnedFd> {
        let path = CString::new(path.strip_prefix("/etc/")?).ok()?;
        let etc = File::open(format!("{}/etc", self.toplevel?)).ok()?;
        openat2(etc, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).ok()
    }
}

fn was_copied(path: &str) -> bool {
    let copied = |path| file::read_to_string(COPIED).unwrap_or_default().lines().any(|line| line == path);
    path.strip_prefix("/etc/").is_some_and(copied)
}
