//! Staging directories: the unfinished files of an output lie in a directory `.firn-XXXXXX` beside their final places, which its
//! process keeps locked. One that is not locked is a leftover of a process that was killed, and is deleted by the next.

use crate::host::directory_lock::DirectoryLock;
use crate::host::progress::tell;
use anyhow::{Context, Result, bail};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The beginning of the names of all files that firn makes for its own use.
pub const PREFIX: &str = ".firn-";

/// The file in a staging directory with the process and its claim.
const CLAIM: &str = ".firn-claim";

/// Files that older versions of firn, without claims, left in their staging directories.
const OLD_FILES: [&str; 10] = [
    "nix-path-registration",
    "initrd",
    "initrd.gz",
    "bzImage",
    "netboot.ipxe",
    "kexec-boot",
    "manifest.json",
    "nixos.efi",
    // Of a layer cache.
    "image",
    "text",
];

/// The thing that no two processes may write at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim<'a> {
    /// The files of a build or of a tree.
    Directory,
    /// The file of this name, and those with numbers after it.
    File(&'a str),
    /// Nothing: several processes may write the same files.
    Nothing,
}

/// A staging directory. It is deleted when this is dropped.
#[derive(Debug)]
pub struct Staging {
    // Deleted first, while it is still locked.
    directory: TempDir,
    lock: File,
}

impl Staging {
    /// Makes a staging directory in a locked directory, and deletes the leftovers there.
    ///
    /// # Errors
    ///
    /// A running process with the same claim, and those of writing.
    pub fn create(parent: &DirectoryLock, claim: Claim) -> Result<Self> {
        let text = match claim {
            Claim::Directory => String::new(),
            Claim::File(name) => name.into(),
            Claim::Nothing => "/".into(),
        };
        for path in staging_directories(&parent.path)? {
            // The directory of another user cannot be opened, and is not in the way.
            let Ok(directory) = open_directory(&path) else { continue };
            if directory.try_lock().is_ok() {
                if is_leftover(&path) {
                    // The program of a killed build may still be writing there.
                    if let Err(error) = fs::remove_dir_all(&path) {
                        tell(&format!("{} is left over, and cannot be deleted: {error}", path.display()));
                    }
                }
                continue;
            }
            let owner = fs::read_to_string(path.join(CLAIM)).unwrap_or_default();
            let Some((process, other)) = owner.split_once('\n') else { continue };
            if claim != Claim::Nothing && other == text {
                let output = parent.path.join(other);
                bail!(
                    "another firn (process {process}) is writing {}; wait for its end, or give another place with --out",
                    output.display()
                );
            }
        }
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent.path)
            .with_context(|| format!("making a directory for unfinished files in {}", parent.path.display()))?;
        let make = || -> io::Result<File> {
            fs::write(directory.path().join(CLAIM), format!("{}\n{text}", std::process::id()))?;
            let lock = open_directory(directory.path())?;
            lock.try_lock()?;
            Ok(lock)
        };
        let lock = make().with_context(|| format!("locking the directory {}", directory.path().display()))?;
        Ok(Self { directory, lock })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Ends its life as a staging directory: it is not deleted. Returns its lock.
    #[must_use]
    pub fn keep(self) -> File {
        let Self { directory, lock } = self;
        drop(directory.keep());
        lock
    }
}

/// Opens a directory itself: a symlink is an error.
fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// The directories with the names of staging directories: [`PREFIX`] and six letters or digits.
fn staging_directories(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).with_context(|| format!("reading the directory {}", parent.display()))? {
        let entry = entry.with_context(|| format!("reading the directory {}", parent.display()))?;
        let name = entry.file_name();
        let suffix = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if suffix.is_some_and(is_suffix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a text is the end of the name of a staging directory, as [`tempfile`] makes it.
#[must_use]
pub fn is_suffix(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a directory has the claim of a process, or is what remains of one that was being deleted: empty.
#[must_use]
pub fn is_claimed(path: &Path) -> bool {
    path.join(CLAIM).exists() || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether an unlocked directory is from firn. Without a claim its files tell: a directory of other files belongs to somebody else.
fn is_leftover(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    let mut names = entries.map_while(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    path.join(CLAIM).exists() || names.all(|name| OLD_FILES.contains(&name.as_str()) || name.starts_with("nix-store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(directory: &TempDir) -> DirectoryLock {
        DirectoryLock::take(directory.path()).unwrap()
    }

    fn names(directory: &TempDir) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn c_8_leftovers_are_deleted_and_foreign_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, files) in [
            (".firn-aaaaaa", &[CLAIM, "nix-store.squashfs", "anything"][..]),
            (".firn-bbbbbb", &["nix-store-2.erofs", "nix-path-registration"]),
            (".firn-cccccc", &[]),
            (".firn-backup", &["notes", "initrd"]),
            (".firn-notes", &["initrd"]),
            ("firn", &["initrd"]),
        ] {
            fs::create_dir(path(name)).unwrap();
            for file in files {
                fs::write(path(name).join(file), "x").unwrap();
            }
        }
        fs::write(path(".firn-dddddd"), "a file").unwrap();
        std::os::unix::fs::symlink("firn", path(".firn-eeeeee")).unwrap();
        drop(Staging::create(&lock(&directory), Claim::Directory).unwrap());
        assert_eq!(names(&directory), [".firn-backup", ".firn-dddddd", ".firn-eeeeee", ".firn-notes", "firn"]);
        assert!(path("firn/initrd").exists());
    }

    #[test]
    fn c_8_one_process_at_a_time_writes_an_output() {
        let directory = tempfile::tempdir().unwrap();
        let running = Staging::create(&lock(&directory), Claim::Directory).unwrap();
        let file = Staging::create(&lock(&directory), Claim::File("a")).unwrap();
        let other = Staging::create(&lock(&directory), Claim::File("b")).unwrap();
        let nothing = [0, 1].map(|_| Staging::create(&lock(&directory), Claim::Nothing).unwrap());
        for (claim, name) in [(Claim::Directory, ""), (Claim::File("a"), "a")] {
            let error = Staging::create(&lock(&directory), claim).unwrap_err().to_string();
            let expected = format!(
                "another firn (process {}) is writing {}; wait for its end, or give another place with --out",
                std::process::id(),
                directory.path().join(name).display()
            );
            assert_eq!(error, expected);
        }
        assert_eq!(names(&directory).len(), 5, "those of running processes stay");
        drop((running, file, other, nothing));
        assert!(names(&directory).is_empty());
    }
}
