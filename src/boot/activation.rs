//! What has to be done in the new root before an init that is systemd itself.

use crate::boot::etc::InPlace;
use crate::boot::start::nixos_init;
use crate::boot::start::program;
use crate::boot::store::NewRoot;
use crate::boot::system::System;
use crate::contract::kind::Kind;
use anyhow::Result;
use std::process::{Command, Stdio};

/// Activates the system, if its init does not do so itself.
///
/// # Errors
///
/// Those of prepare-root, or of what nixos-init would do.
pub fn activate(root: &NewRoot, _etc: &InPlace, system: &System) -> Result<()> {
    match (system.kind, &system.toplevel) {
        (Kind::PrepareRoot, Some(toplevel)) => root.inside(|| prepare_root(toplevel)),
        (Kind::NixosInit, Some(toplevel)) => root.inside(|| nixos_init::activate(toplevel, &system.config)),
        _ => Ok(()),
    }
}

/// Runs the stage-2 script of a system made for a systemd stage 1, which activates it and returns, as NixOS' own initrd does
/// (nixpkgs, `nixos/modules/system/boot/systemd/initrd.nix`).
fn prepare_root(toplevel: &str) -> Result<()> {
    let mut command = Command::new(format!("{toplevel}/prepare-root"));
    command.env_clear().env("IN_NIXOS_SYSTEMD_STAGE1", "true").stdin(Stdio::null());
    log::info!("Running {toplevel}/prepare-root");
    program::run("prepare-root", command, None)
}
