//! The guard of a store that is not registered: Nix must not delete the running system.
//!
//! A garbage collection deletes all paths that the Nix database does not have. It begins with the files in `temproots`, each of which is
//! named by the process that wrote it, and ends with an error if it cannot open one of them (`LocalStore::findTempRoots`,
//! src/libstore/gc.cc; tested with Nix 2.8 and 2.34). A directory there does that, and hinders nothing else.

use crate::boot::kernel::file;
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

/// A rule of systemd-tmpfiles (`man 5 tmpfiles.d`) that makes the guard again at the boot of the system: NixOS deletes `temproots` then
/// (nixpkgs, `nixos/modules/system/boot/systemd/tmpfiles.nix`).
fn rule() -> String {
    format!("d! {GUARD} 0755\n")
}

/// Keeps a guard that was not lifted, in the root of this process, unless the system registers the store itself: by nixpkgs' unit
/// `register-nix-paths.service`, which is wanted by `sysinit.target`, and a link to a device if it is masked.
pub fn keep(toplevel: &str) {
    let unit = format!("{toplevel}/etc/systemd/system/sysinit.target.wants/register-nix-paths.service");
    if fs::symlink_metadata(GUARD).is_err() || fs::metadata(unit).is_ok_and(|unit| unit.is_file()) {
        return;
    }
    let kept =
        make_directory("/run/tmpfiles.d").and_then(|()| file::replace("/run/tmpfiles.d/firn.conf", rule().as_bytes()));
    if let Err(error) = kept {
        log::warn!("{error:#}; a system that empties /nix/var/nix/temproots loses {GUARD}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{enter_initramfs, in_namespaces};
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn a_4_the_guard_stays_where_the_system_empties_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path.trim_start_matches('/'));
        for (file, rule) in
            [("etc/tmpfiles.d/nixos.conf", "R! /nix/var/nix/temproots\n"), ("run/tmpfiles.d/firn.conf", &*rule())]
        {
            fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            fs::write(path(file), rule).unwrap();
        }
        fs::create_dir_all(path(GUARD)).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = Command::new("systemd-tmpfiles");
            let status = command.arg("--root").arg(root.path()).args(["--create", "--remove"]).args(arguments).status();
            assert!(status.unwrap().success());
        };
        run(&["--boot"]);
        assert!(path(GUARD).is_dir());
        // A person registers the store and deletes the guard. A switch to another system does not bring it back.
        fs::remove_dir(path(GUARD)).unwrap();
        run(&[]);
        assert!(!path(GUARD).exists());
    }

    #[test]
    fn a_4_a_system_that_registers_the_store_itself_may_delete_the_guard() {
        in_namespaces(module_path!(), "a_4_a_system_that_registers_the_store_itself_may_delete_the_guard", || {
            let work = tempfile::tempdir().unwrap();
            enter_initramfs(work.path(), &[]);
            let kept = || {
                let rule = Path::new("/run/tmpfiles.d/firn.conf");
                file::remove(rule).unwrap();
                keep("/system");
                rule.exists()
            };
            assert!(!kept());
            set();
            assert!(kept());
            let (unit, wants) = (
                Path::new("/system/etc/systemd/system/register-nix-paths.service"),
                Path::new("/system/etc/systemd/system/sysinit.target.wants"),
            );
            make_directory(wants).unwrap();
            fs::write(unit, "").unwrap();
            // Nothing starts it.
            assert!(kept());
            symlink("../register-nix-paths.service", wants.join("register-nix-paths.service")).unwrap();
            assert!(!kept());
            fs::remove_file(unit).unwrap();
            symlink("/dev/null", unit).unwrap();
            assert!(kept());
        });
    }
}
