//! The owner of a disk that the command line names as the root: nothing on it is hidden or changed because of one word.

use crate::boot::parameters::options::Persistence;
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;

/// A mount point that firn and nixpkgs' netboot media make on every root. A disk with it was the root of a system that runs from memory.
const MARK: &str = "/nix/.rw-store";

/// Files that belong to an operating system, and their names for people.
const SIGNS: [(&str, &str); 4] = [
    ("/etc/os-release", "an operating system (/etc/os-release)"),
    ("/usr/lib/os-release", "an operating system (/usr/lib/os-release)"),
    ("/nix/var/nix/db", "a Nix database (/nix/var/nix/db)"),
    ("/nix/var/nix/profiles/system", "a NixOS system profile (/nix/var/nix/profiles/system)"),
];

/// Checks that the root of this process, the disk `name`, is empty or was the root of a system that runs from memory. Returns whether
/// it has another system, which only [`Persistence::Any`] allows.
///
/// # Errors
///
/// A disk with another system that is not allowed.
pub fn check(name: &str, allowed: Persistence) -> Result<bool> {
    let Some(other) = other_system() else { return Ok(false) };
    if allowed == Persistence::Own {
        bail!(
            "the disk {name} of boot.persistence= has {other}, which this boot would hide or change; name another disk, or insist with \
             firn.persistence=any on the kernel command line: the store, the Nix database and the profiles on the disk stay as they are \
             then, and the started system changes its /etc"
        );
    }
    log::error!(
        "The disk {name} has {other}. It is the root because of firn.persistence=any: its store is hidden, and Nix's database and \
         profiles of this boot are in memory"
    );
    Ok(true)
}

/// What the root of this process has of another system.
fn other_system() -> Option<String> {
    let paths = fs::read_dir("/nix/store").into_iter().flatten().flatten();
    let paths = paths.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).count();
    if paths > 0 {
        return Some(format!("a Nix store ({paths} paths in /nix/store)"));
    }
    // Not by following symlinks: those of a system that runs from memory lead nowhere now.
    let exists = |path: &str| fs::symlink_metadata(path).is_ok();
    if Path::new(MARK).is_dir() {
        return None;
    }
    SIGNS.iter().find(|(path, _)| exists(path)).map(|(_, name)| (*name).to_owned())
}
