//! The Nix database of the running system: a copy of the database in the ramdisk, or made by the system's own Nix.
//!
//! It is a writable file in the new root: Nix cannot even read a database that is read-only.

use crate::boot::kernel::file;
use crate::boot::kernel::mount::{Filesystem, make_directory};
use crate::boot::root::is_in_memory;
use crate::boot::start::program;
use crate::boot::store::NewRoot;
use crate::contract::plan::{Database, REGISTRATION};
use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const DIRECTORY: &str = "/nix/var/nix/db";

/// The time limit for Nix. With a registration of 38 MB it needs 90 s.
const TIMEOUT: Duration = Duration::from_mins(15);

const FULL: &str =
    "the root is full; add a larger firn.root.size= to the kernel command line, such as firn.root.size=80%";
const FULL_MEMORY: &str =
    "the tmpfs of the Nix database, a quarter of the memory, is full; give the machine more memory";
const NO_INODE: &str = "the root has no room for another file; add a larger firn.root.inodes= to the kernel command line, such as firn.root.inodes=1m";

/// Makes the Nix database of the store paths. It replaces the one that an earlier attempt made. On a disk nothing is replaced: the
/// database is in a tmpfs there. The store is in memory, too, so the next boot makes another one.
///
/// # Errors
///
/// The database of the ramdisk cannot be copied; or, if the ramdisk has none, the system's own Nix fails. An incomplete database is
/// deleted.
pub fn make(root: &NewRoot, toplevel: &str, prebuilt: Option<&Database>) -> Result<()> {
    // Opened before the change of the root: it is a file of the initramfs.
    let open = |database: &Database| {
        log::info!("Registering the store: copying the Nix database {}", database.path);
        file::open(&database.path).with_context(|| format!("opening {}", database.path))
    };
    let prebuilt = prebuilt.map(|database| Ok::<_, anyhow::Error>((open(database)?, database.schema))).transpose();
    root.inside(|| {
        let directory = Path::new(DIRECTORY);
        delete(directory).with_context(|| format!("deleting {DIRECTORY}, the Nix database of an earlier attempt"))?;
        if !is_in_memory()? {
            Filesystem::tmpfs(&[("mode", "0755"), ("size", "25%")]).mount(directory)?;
        }
        let made = prebuilt.and_then(|prebuilt| match prebuilt {
            Some((database, schema)) => copy(database, schema, directory),
            None => load(toplevel),
        });
        made.map_err(|error| {
            let error = match why_full() {
                Some(reason) => error.context(reason),
                None => error,
            };
            // Every command of Nix fails with an incomplete database.
            match delete(directory) {
                Ok(()) => error,
                Err(reason) => {
                    error.context(format!("the incomplete Nix database {DIRECTORY} cannot be deleted: {reason:#}"))
                }
            }
        })
    })
}

/// Copies the database of the ramdisk. Nix itself makes the other files of the directory (`big-lock`, `reserved`) when it first runs.
fn copy(mut database: File, schema: u32, directory: &Path) -> Result<()> {
    make_directory(directory)?;
    let mut copy = || -> io::Result<()> {
        io::copy(&mut database, &mut File::create(directory.join("db.sqlite"))?)?;
        fs::write(directory.join("schema"), schema.to_string())
    };
    copy().with_context(|| format!("copying the Nix database of the ramdisk to {}", directory.display()))
}

/// Runs `nix-store --load-db` of the system's own Nix, with the registration of the store images.
fn load(toplevel: &str) -> Result<()> {
    let registration = format!("/nix/store/{REGISTRATION}");
    let nix_store = format!("{toplevel}/sw/bin/nix-store");
    log::info!("Registering the store: {nix_store} --load-db < {registration}");
    let input = file::open(&registration).with_context(|| format!("opening {registration}"))?;
    let mut command = Command::new(&nix_store);
    command
        .arg("--load-db")
        .env_clear()
        // /etc/passwd, /etc/group and /etc/nix/nix.conf do not exist yet: Nix cannot look up the user, the home or the group nixbld.
        .env("USER", "root")
        .env("HOME", "/root")
        .env("NIX_CONFIG", "build-users-group =\nsubstituters =")
        .stdin(input);
    program::run("nix-store", command, TIMEOUT)?;
    fs::metadata(Path::new(DIRECTORY).join("db.sqlite"))
        .context("nix-store succeeded but made no /nix/var/nix/db/db.sqlite")?;
    Ok(())
}

/// The sentence about a file system of the database without a free block or inode. 0 inodes in all mean no limit (`man 5 tmpfs`).
fn why_full() -> Option<&'static str> {
    let status = rustix::fs::statvfs(DIRECTORY).or_else(|_| rustix::fs::statvfs("/")).ok()?;
    let reason = match (status.f_bfree, status.f_ffree) {
        (0, _) => FULL,
        (_, 0) if status.f_files > 0 => NO_INODE,
        _ => return None,
    };
    Some(if is_in_memory().unwrap_or(true) { reason } else { FULL_MEMORY })
}

/// Deletes the database that this boot made.
fn delete(directory: &Path) -> Result<()> {
    if !is_in_memory()? {
        while unmount(directory, UnmountFlags::DETACH).is_ok() {}
        return Ok(());
    }
    Ok(file::remove(directory)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::root::Root;
    use crate::testing::in_namespaces_of_root;

    #[test]
    fn b_7_a_limit_that_is_reached_is_named() {
        in_namespaces_of_root(module_path!(), "b_7_a_limit_that_is_reached_is_named", || {
            let work = tempfile::tempdir().unwrap();
            let path = work.path().to_str().unwrap();
            for (limit, expected) in [("nr_inodes", NO_INODE), ("nr_blocks", FULL)] {
                Filesystem::tmpfs(&[(limit, "2")]).mount(work.path()).unwrap();
                let root = Root::open(path).unwrap();
                let reason = |contents: &[u8]| {
                    root.inside(|| {
                        fs::write("/file", contents).unwrap_or_default();
                        Ok(why_full())
                    })
                };
                assert_eq!(reason(&vec![0; 1 << 16]).unwrap(), Some(expected));
            }
        });
    }
}
