//! What was made, for machines to read.

use super::nix::Registered;
use super::output::Entry;
use super::toplevel::System;
use crate::kind::Kind;
use crate::plan::Plan;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The contents of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of firn that made it.
    pub firn: String,
    /// For people, such as `NixOS 25.11 (Linux 6.12)`.
    pub label: String,
    /// Such as `x86_64-linux`.
    pub system: String,
    /// The system's path in the store.
    pub toplevel: String,
    /// The system's init.
    pub init: String,
    /// What the system expects of stage 1 before its init.
    pub hand_over: Kind,
    /// What the boot loader gives to the kernel, apart from words of its own such as `initrd=`.
    pub cmdline: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// The modules that every boot loads, in this order.
    pub modules: Vec<String>,
    /// How many store paths the image holds.
    pub store_paths: usize,
    /// The size of these paths, bytes, as NARs.
    pub store_bytes: u64,
    /// The store image, which has this name in the directory and at the root of the ramdisk.
    pub image: String,
    /// Every other file of the directory, by name.
    pub files: Vec<Entry>,
}

impl Manifest {
    /// The manifest as it stands in the file.
    ///
    /// # Errors
    ///
    /// None in practice: every field is plain data.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// Describes a build of which `files` were made.
pub fn describe(system: &System, plan: &Plan, closure: &[Registered], files: &[Entry]) -> Manifest {
    Manifest {
        firn: env!("CARGO_PKG_VERSION").into(),
        label: system.label.clone(),
        system: system.platform.clone(),
        toplevel: system.toplevel.to_string_lossy().into_owned(),
        init: system.init.clone(),
        hand_over: system.kind,
        cmdline: system.cmdline(),
        kernel_release: system.kernel_release.clone(),
        modules: plan.modules.clone(),
        store_paths: closure.len(),
        store_bytes: closure.iter().map(|path| path.nar_size).sum(),
        image: plan.image.path.trim_start_matches('/').into(),
        files: files.to_vec(),
    }
}
