//! The Nix database of the running system: a copy of the one that came in the ramdisk, or made by the system's own Nix.
//!
//! It has to be a file in the new root: even to read it, Nix needs one that can be written to.

use crate::boot::kernel::mount::make_directory;
use crate::boot::root::Root;
use crate::boot::start::program;
use crate::boot::store::NewRoot;
use crate::contract::plan::{Database, REGISTRATION};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const DIRECTORY: &str = "/nix/var/nix/db";

/// How long Nix may take. A registration of 38 MB was seen to take 90 s.
const PATIENCE: Duration = Duration::from_mins(15);

const FULL: &str = "the root is full: give it more with firn.root.size=, such as firn.root.size=80%";

/// Makes the database of the store's paths, in the place of one that is there.
///
/// # Errors
///
/// A database of the ramdisk that cannot be copied; without one, a Nix of the system that fails. Nothing of a database is there
/// then.
pub fn make(root: &NewRoot, toplevel: &str, prebuilt: Option<&Database>) -> Result<()> {
    let directory = root.at(DIRECTORY);
    // On a root that stays: the store's writable layer does not, and Nix would take paths for valid that went with it.
    delete(&directory)
        .with_context(|| format!("deleting {}, which knows the store of an earlier boot", directory.display()))?;
    let made = match prebuilt {
        Some(database) => copy(database, &directory),
        None => load(root, toplevel),
    };
    made.map_err(|error| {
        let error = if is_full(root) { error.context(FULL) } else { error };
        // Nix would open a part of one, and find it damaged whatever it is asked.
        match delete(&directory) {
            Ok(()) => error,
            Err(reason) => error.context(format!("{} cannot be deleted either: {reason}", directory.display())),
        }
    })
}

/// Copies the ramdisk's. What else lies in the directory of a Nix that ran (`big-lock`, `reserved`) it makes when it first does.
fn copy(database: &Database, directory: &Path) -> Result<()> {
    log::info!("Registering the store: {} is its Nix database", database.path);
    make_directory(directory)?;
    let copy = || -> io::Result<()> {
        io::copy(&mut File::open(&database.path)?, &mut File::create(directory.join("db.sqlite"))?)?;
        fs::write(directory.join("schema"), database.schema.to_string())
    };
    copy().with_context(|| format!("copying {} to {}", database.path, directory.display()))
}

/// `nix-store --load-db` of the image's registration, by the system's own Nix, with the new root as `/`.
fn load(root: &NewRoot, toplevel: &str) -> Result<()> {
    let registration = format!("/nix/store/{REGISTRATION}");
    let nix_store = format!("{toplevel}/sw/bin/nix-store");
    log::info!("Registering the store: {nix_store} --load-db < {registration}");
    root.inside(|| {
        let input = File::open(&registration).with_context(|| format!("opening {registration}"))?;
        let mut command = Command::new(&nix_store);
        command
            .arg("--load-db")
            .env_clear()
            // Neither /etc/passwd nor /etc/nix/nix.conf is there yet: no user and no home to look up, no group nixbld.
            .env("USER", "root")
            .env("HOME", "/root")
            .env("NIX_CONFIG", "build-users-group =\nsubstituters =")
            .stdin(input);
        program::run("nix-store", command, Some(PATIENCE))
    })?;
    fs::metadata(root.at(DIRECTORY).join("db.sqlite")).context("nix-store made no /nix/var/nix/db/db.sqlite")?;
    Ok(())
}

/// Whether there is no room for one more page in the new root.
fn is_full(root: &Root) -> bool {
    rustix::fs::fstatvfs(&root.directory).is_ok_and(|status| status.f_bfree == 0)
}

fn delete(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
