//! A directory of the new root that files are copied to.
//!
//! A symlink to a directory is followed, so the files arrive where the link leads. The exception are links of the system itself, into the
//! store: `/etc/nix` -> `/etc/static/nix` on a root that stays, or `/etc/systemd` in an overlay for `/etc`. Nothing may be written to the
//! store, and the store of an earlier boot may be gone. Such a link is replaced by a directory with links to the same files, so that the
//! files of the host take effect and those of the system are still there. A directory where activation would make such a link gets the
//! same links: NixOS' activation keeps a directory with files of others, with a warning, and does not add the files of the system
//! (nixpkgs, `nixos/modules/system/etc/setup-etc.pl`).

use crate::boot::files::of_system::EtcOfSystem;
use crate::boot::files::{BUFFER, DIRECTORY, modes, open};
use anyhow::{Context, Result, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, RenameFlags, Stat, chmodat, chownat, fstat, mkdirat, readlinkat, renameat_with,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::cell::OnceCell;
use std::ffi::CStr;
use std::mem::MaybeUninit;

/// The name of a new directory until it takes the place of a symlink.
const NEW: &CStr = c".firn-init.new-directory";

/// The link to the store path of `/etc` in NixOS. Activation makes it.
const STATIC: &[u8] = b"/etc/static/";
/// The same path, for links that activation must not take for its own: it removes those of its own that lead to a regular file.
const STATIC_OF_OTHERS: &[u8] = b"/etc/./static/";

/// A directory of the new root, opened when the first file is copied into it.
pub struct Directory<'a> {
    /// The directory above; the root has none.
    pub above: Option<&'a Self>,
    pub name: &'a CStr,
    /// The path in the new root; empty for the root itself.
    pub path: String,
    /// The status of the directory in the archive.
    status: Option<Stat>,
    /// The open directory, or `None` if it could not be opened.
    pub opened: OnceCell<Option<OwnedFd>>,
}

impl<'a> Directory<'a> {
    /// The root of this process.
    pub fn root(directory: OwnedFd) -> Self {
        Self { above: None, name: c"", path: String::new(), status: None, opened: OnceCell::from(Some(directory)) }
    }

    /// A directory of the archive, with its path and its status there.
    pub fn below(above: &'a Self, name: &'a CStr, path: &str, status: Stat) -> Self {
        Self { above: Some(above), name, path: path.into(), status: Some(status), opened: OnceCell::new() }
    }

    /// The path of a file in this directory.
    pub fn path_of(&self, name: &CStr) -> String {
        format!("{}/{}", self.path, name.to_string_lossy())
    }

    /// Opens it in the open directory `above`. A missing directory is made, with the owner and the mode of the archive or the standard
    /// mode. An existing one keeps its own: a file /etc/x in the archive is no reason to change /etc.
    ///
    /// # Errors
    ///
    /// A file of another kind in its place, a symlink that leads to no directory, or an error of mkdir(2) or open(2).
    pub fn enter(&self, above: &OwnedFd, etc: EtcOfSystem<'_>) -> Result<OwnedFd> {
        match (mkdirat(above, self.name, Mode::RWXU), &self.status) {
            (Ok(()), Some(status)) => {
                let (user, group, mode) = modes::of_new_directory(self.name, &self.path, status);
                set_owner_and_mode(above, self.name, user, group, Some(mode))
                    .inspect_err(|_| unlinkat(above, self.name, AtFlags::REMOVEDIR).unwrap_or_default())?;
            }
            (Ok(()), None) | (Err(Errno::EXIST), _) => {}
            (Err(errno), _) => return Err(errno.into()),
        }
        match open(above.as_fd(), self.name, DIRECTORY) {
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            opened => {
                let directory = opened?;
                if let Some(target) = etc.linked(&self.path) {
                    let name = self.path.strip_prefix("/etc/").unwrap_or_default();
                    link_entries(&target, &[STATIC_OF_OTHERS, name.as_bytes()].concat(), &directory)?;
                }
                return Ok(directory);
            }
        }
        let Ok(link) = readlinkat(above, self.name, Vec::new()) else {
            bail!("a file is in the way of this directory; remove it, or put the files elsewhere");
        };
        match open(above.as_fd(), self.name, OFlags::DIRECTORY) {
            Ok(directory) if !is_in_store(&directory) => Ok(directory),
            Ok(directory) => self.replace(above, link.to_bytes(), etc.directory(&self.path).or(Some(directory))),
            Err(Errno::NOENT)
                if [STATIC, STATIC_OF_OTHERS, b"/nix/store/"]
                    .iter()
                    .any(|start| link.to_bytes().starts_with(start)) =>
            {
                self.replace(above, link.to_bytes(), etc.directory(&self.path))
            }
            // Not replaced: it may lead to a file system that the system mounts later.
            Err(errno) => Err(errno).with_context(|| {
                format!(
                    "it is a symlink to {}, which is no directory; make that directory or remove the symlink",
                    link.to_string_lossy()
                )
            }),
        }
    }

    /// Replaces the symlink by a directory with links to the entries of its target. rename(2) exchanges the two, so that one of them is
    /// there at any time.
    fn replace(&self, above: &OwnedFd, link: &[u8], target: Option<OwnedFd>) -> Result<OwnedFd> {
        log::info!("Replacing the symlink {} by a directory with links, for the files of this host", self.path);
        // A machine that crashed may have left it.
        match mkdirat(above, NEW, Mode::from(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let new = open(above.as_fd(), NEW, DIRECTORY)?;
        if let Some(target) = target {
            let link = match (link.strip_prefix(STATIC), link.first()) {
                (Some(rest), _) => &[STATIC_OF_OTHERS, rest].concat(),
                (None, Some(b'/')) => link,
                // A relative link begins one directory further up now.
                _ => &[b"../", link].concat(),
            };
            link_entries(&target, link, &new)?;
        }
        renameat_with(above, NEW, above, self.name, RenameFlags::EXCHANGE)?;
        unlinkat(above, NEW, AtFlags::empty())?;
        Ok(new)
    }
}

/// Makes a symlink in the directory `to` for each entry of the directory `from`, whose path is `path`. Existing files stay.
fn link_entries(from: &OwnedFd, path: &[u8], to: &OwnedFd) -> Result<(), Errno> {
    let mut buffer = [const { MaybeUninit::uninit() }; BUFFER];
    let mut entries = RawDir::new(from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            match symlinkat([path, b"/", name.to_bytes()].concat(), to, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Whether a directory is in the store: an overlay has one device number for all of its directories.
fn is_in_store(directory: &OwnedFd) -> bool {
    let store = statat(CWD, c"/nix/store", AtFlags::empty());
    matches!((fstat(directory), store), (Ok(directory), Ok(store)) if directory.st_dev == store.st_dev)
}

/// Sets the owner and the mode of a file; a symlink has no mode.
///
/// # Errors
///
/// Those of chown(2) and chmod(2).
pub fn set_owner_and_mode(at: &OwnedFd, name: &CStr, user: u32, group: u32, mode: Option<u32>) -> Result<(), Errno> {
    chownat(at, name, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    // After the owner: chown(2) clears set-user-ID bits.
    mode.map_or(Ok(()), |mode| chmodat(at, name, Mode::from(mode & 0o7777), AtFlags::empty()))
}
