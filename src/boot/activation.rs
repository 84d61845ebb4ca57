//! The activation of the system, for an init that is systemd itself and does not activate it.

use crate::boot::etc::InPlace;
use crate::boot::start::nixos_init;
use crate::boot::start::program;
use crate::boot::store::NewRoot;
use crate::boot::system::System;
use crate::contract::kind::Kind;
use anyhow::Result;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The time limit for `prepare-root`.
const LIMIT: Duration = Duration::from_mins(15);

/// Activates the system, if its init does not do so itself.
///
/// # Errors
///
/// An error of `prepare-root`, or of a step of nixos-init.
pub fn activate(root: &NewRoot, _etc: &InPlace, system: &System) -> Result<()> {
    match (system.kind, &system.toplevel) {
        (Kind::PrepareRoot, Some(toplevel)) => root.inside(|| prepare_root(toplevel)),
        (Kind::NixosInit, Some(toplevel)) => root.inside(|| nixos_init::activate(toplevel, &system.config)),
        _ => Ok(()),
    }
}

/// Runs the stage-2 script of a system built for a systemd stage 1. It activates the system and returns. NixOS' own ramdisk does the
/// same (nixpkgs, `nixos/modules/system/boot/systemd/initrd.nix`).
fn prepare_root(toplevel: &str) -> Result<()> {
    let mut command = Command::new(format!("{toplevel}/prepare-root"));
    command.env_clear().env("IN_NIXOS_SYSTEMD_STAGE1", "true").stdin(Stdio::null());
    log::info!("Running {toplevel}/prepare-root");
    program::run("prepare-root", command, LIMIT)
}
