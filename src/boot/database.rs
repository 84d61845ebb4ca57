//! The Nix database of the running system: a copy of the one that came in the ramdisk, or made by the system's own Nix.
//!
//! It has to be a file in the new root: even to read it, Nix needs one that can be written to.

use crate::boot::kernel::mount::make_directory;
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

/// Makes the database of the store's paths and replaces one that is there.
///
/// # Errors
///
/// A database of the ramdisk that cannot be copied; without one, a Nix of the system that fails. No part of a database is left then.
pub fn make(root: &NewRoot, toplevel: &str, prebuilt: Option<&Database>) -> Result<()> {
    // Opened here: it is a file of the initramfs.
    let open = |database: &Database| {
        log::info!("Registering the store: {} is its Nix database", database.path);
        File::open(&database.path).with_context(|| format!("opening {}", database.path))
    };
    let prebuilt = prebuilt.map(|database| Ok::<_, anyhow::Error>((open(database)?, database.schema))).transpose();
    root.inside(|| {
        let directory = Path::new(DIRECTORY);
        // On a root that stays: the store's writable layer does not, and Nix would take paths for valid that went with it.
        delete(directory).with_context(|| format!("deleting {DIRECTORY}, which knows the store of an earlier boot"))?;
        let made = prebuilt.and_then(|prebuilt| match prebuilt {
            Some((database, schema)) => copy(database, schema, directory),
            None => load(toplevel),
        });
        made.map_err(|error| {
            let error = if is_full() { error.context(FULL) } else { error };
            // Nix would open a part of one, and find it damaged whatever it is asked.
            match delete(directory) {
                Ok(()) => error,
                Err(reason) => error.context(format!("{DIRECTORY} cannot be deleted either: {reason}")),
            }
        })
    })
}

/// Copies the ramdisk's database. The other files of the directory (`big-lock`, `reserved`) are made by the first Nix that runs.
fn copy(mut database: File, schema: u32, directory: &Path) -> Result<()> {
    make_directory(directory)?;
    let mut copy = || -> io::Result<()> {
        io::copy(&mut database, &mut File::create(directory.join("db.sqlite"))?)?;
        fs::write(directory.join("schema"), schema.to_string())
    };
    copy().with_context(|| format!("copying the ramdisk's Nix database to {}", directory.display()))
}

/// `nix-store --load-db` of the image's registration, by the system's own Nix.
fn load(toplevel: &str) -> Result<()> {
    let registration = format!("/nix/store/{REGISTRATION}");
    let nix_store = format!("{toplevel}/sw/bin/nix-store");
    log::info!("Registering the store: {nix_store} --load-db < {registration}");
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
    program::run("nix-store", command, Some(PATIENCE))?;
    fs::metadata(Path::new(DIRECTORY).join("db.sqlite")).context("nix-store made no /nix/var/nix/db/db.sqlite")?;
    Ok(())
}

/// Whether there is no room for one more page in the root.
fn is_full() -> bool {
    rustix::fs::statvfs("/").is_ok_and(|status| status.f_bfree == 0)
}

fn delete(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
