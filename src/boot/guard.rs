//! The guard of a store that is not registered: Nix must not delete the running system.
//!
//! A garbage collection deletes all paths that the Nix database does not have. It begins with the files in `temproots`, each of which is
//! named by the process that wrote it, and ends with an error if it cannot open one of them (`LocalStore::findTempRoots`,
//! src/libstore/gc.cc; tested with Nix 2.8 and 2.34). A directory there does that, and hinders nothing else.

use crate::boot::kernel::mount::make_directory;
use std::fs;
use std::io::ErrorKind;

/// The directory. Nix expects a number in front. The error of Nix shows the rest.
pub const GUARD: &str = "/nix/var/nix/temproots/1-the-store-is-not-registered";

/// Sets the guard, in the root of this process. It stays until the store is registered.
pub fn set() {
    if let Err(error) = make_directory(GUARD) {
        log::warn!("{error:#}; until the store is registered, a garbage collection of Nix deletes the running system");
    }
}

/// Lifts the guard, in the root of this process.
pub fn lift() {
    if let Err(error) = fs::remove_dir(GUARD)
        && error.kind() != ErrorKind::NotFound
    {
        log::warn!("Deleting {GUARD}: {error}; Nix collects no garbage as long as it is there");
    }
}
