//! The registration of the system in the new root: the Nix database, the system profile, the garbage collector roots, `/etc/NIXOS`.
//!
//! These are the steps that nixpkgs' `installer/netboot/netboot.nix` does after the boot. Here they are done before the system's init
//! runs. The system does them again and finds nothing to change.

use crate::boot::database;
use crate::boot::etc::InPlace;
use crate::boot::guard::{self, GUARD};
use crate::boot::kernel::mount::make_directory;
use crate::boot::parameters::options::Register;
use crate::boot::plan::BootPlan;
use crate::boot::roots;
use crate::boot::store::NewRoot;
use crate::boot::system::System;
use crate::contract::plan::REGISTRATION;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::Path;

const PROFILES: &str = "/nix/var/nix/profiles";

/// Registers the store paths, sets the system profile and marks the root as NixOS.
///
/// # Errors
///
/// With [`Register::Required`], whatever cannot be made. Otherwise that is only an error in the log: the system starts and works without
/// it, but Nix does not.
pub fn register(root: &NewRoot, _etc: &InPlace, system: &System, plan: &BootPlan, mode: Register) -> Result<()> {
    let unless_required = |result: Result<()>| match result {
        Err(error) if mode == Register::Required => Err(error),
        Err(error) => {
            log::error!("{error:#}. The boot goes on");
            Ok(())
        }
        Ok(()) => Ok(()),
    };
    unless_required(root.inside(tag))?;
    let Some(toplevel) = &system.toplevel else {
        ensure!(
            mode != Register::Required,
            "{} is not part of a NixOS system, so there is nothing to register, but firn.register=required asks for a Nix database: \
             boot the init of a NixOS system, or remove firn.register=required",
            system.init
        );
        log::warn!("The init is not part of a NixOS system: making no Nix database and no system profile");
        return Ok(());
    };
    unless_required(root.inside(|| set_profile(toplevel)))?;
    let roots = root.inside(|| roots::set(&plan.roots));
    let has_roots = roots.is_ok();
    unless_required(roots)?;
    if mode == Register::None {
        log::info!("Making no Nix database, because of firn.register=none. {}", how_to_register());
        return Ok(());
    }
    match database::make(root, toplevel, plan.database.as_ref().filter(|_| mode != Register::Load)) {
        Ok(()) if has_roots => root.inside(|| {
            guard::lift();
            Ok(())
        }),
        Ok(()) => {
            log::error!(
                "Nix collects no garbage, since it would take paths that have no root: rmdir {GUARD} allows it"
            );
            Ok(())
        }
        Err(error) if mode == Register::Required => {
            Err(error.context("making the Nix database, which firn.register=required asks for"))
        }
        Err(error) => {
            log::error!(
                "The store is not registered, so Nix does not know its paths: {error:#}. The boot goes on. {}",
                how_to_register()
            );
            Ok(())
        }
    }
}

fn how_to_register() -> String {
    format!(
        "Nix collects no garbage until you register the store in the running system: nix-store --load-db < /nix/store/{REGISTRATION} && \
         rmdir {GUARD}"
    )
}

/// Makes `/etc/NIXOS`. Programs recognize a NixOS system by this file.
fn tag() -> Result<()> {
    make_directory("/etc")?;
    // An existing one stays as it is, whatever it is: a FIFO would block.
    if fs::symlink_metadata("/etc/NIXOS").is_ok() {
        return Ok(());
    }
    match File::create_new("/etc/NIXOS") {
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            log::info!("Not making /etc/NIXOS: /etc is read-only");
            Ok(())
        }
        other => other.map(drop).context("making /etc/NIXOS"),
    }
}

/// Sets the system profile, as `nix-env --profile /nix/var/nix/profiles/system --set` does, and makes the garbage collector root of the
/// profiles (Nix makes this root only if there is no directory `gcroots`). On a root that stays, another toplevel becomes a new
/// generation, and an existing garbage collector root stays as it is.
fn set_profile(toplevel: &str) -> Result<()> {
    let (profiles, gcroots) = (Path::new(PROFILES), Path::new("/nix/var/nix/gcroots"));
    make_directory(profiles)?;
    make_directory(gcroots)?;
    let mut generation = newest_generation(profiles).unwrap_or(1);
    if fs::read_link(profiles.join(link_name(generation))).is_ok_and(|target| target != Path::new(toplevel)) {
        generation += 1;
    }
    let link = link_name(generation);
    log::info!("Setting the system profile to {toplevel}, as {link}");
    let root = Some((PROFILES, gcroots.join("profiles"))).filter(|(_, root)| fs::symlink_metadata(root).is_err());
    let profile = [(toplevel, profiles.join(&link)), (&link, profiles.join("system"))];
    for (target, link) in profile.into_iter().chain(root) {
        set_link(target, &link).with_context(|| format!("making the symlink {} -> {target}", link.display()))?;
    }
    Ok(())
}

fn link_name(generation: u64) -> String {
    format!("system-{generation}-link")
}

/// The number of the newest generation of the system profile.
fn newest_generation(profiles: &Path) -> Option<u64> {
    let names = fs::read_dir(profiles).ok()?.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix("system-")?.strip_suffix("-link")?.parse().ok()).max()
}

/// Makes a symlink and replaces an existing one. By rename(2), so that a crash leaves either the old or the new one.
fn set_link(target: &str, link: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|existing| existing == Path::new(target)) {
        return Ok(());
    }
    let new = link.with_extension("new");
    match symlink(target, &new) {
        // Left by a machine that crashed before the rename.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(&new)?;
            symlink(target, &new)?;
        }
        other => other?,
    }
    fs::rename(&new, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("system");
        let set = |target: &str| {
            set_link(target, &link).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        };
        set("a");
        set("a");
        set("b");
        symlink("c", directory.path().join("system.new")).unwrap();
        set("d");
    }

    #[test]
    fn generations_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(newest_generation(directory.path()), None);
        for name in ["system-2-link", "system-10-link", "system-99", "other-100-link", "system-x-link", "system"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(newest_generation(directory.path()), Some(10));
    }
}
