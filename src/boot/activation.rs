//! What has to be done in the new root before an init that is systemd itself.

use super::store::NewRoot;
use super::system::System;
use super::{nixos_init, prepare_root};
use crate::kind::Kind;
use anyhow::Result;

/// Activates the system, if its init does not do so itself.
///
/// # Errors
///
/// Those of prepare-root, or of what nixos-init would do.
pub fn activate(root: &NewRoot, system: &System) -> Result<()> {
    match (system.kind, &system.toplevel) {
        (Kind::PrepareRoot, Some(toplevel)) => root.inside(|| prepare_root::run(toplevel)),
        (Kind::NixosInit, Some(toplevel)) => root.inside(|| nixos_init::activate(toplevel, &system.config)),
        _ => Ok(()),
    }
}
