//! The manifest: a description of the output directory for programs.

use crate::build::output::directory::Entry;
use crate::build::system::nix::Registered;
use crate::build::system::toplevel::System;
use crate::contract::kind::Kind;
use crate::contract::plan::Plan;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The contents of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of firn that made it.
    pub firn: String,
    /// The label for people, such as `NixOS 25.11 (Linux 6.12)`.
    pub label: String,
    /// Such as `x86_64-linux`.
    pub system: String,
    /// The system's path in the store.
    pub toplevel: String,
    /// The system's init.
    pub init: String,
    /// The work that the system expects from stage 1 before its init starts.
    pub hand_over: Kind,
    /// The kernel command line, without the parameters that a boot loader adds, such as `initrd=`.
    pub cmdline: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// The modules that every boot loads, in this order.
    pub modules: Vec<String>,
    /// The number of store paths in the store images.
    pub store_paths: usize,
    /// The size of these paths, bytes, as NARs.
    pub store_bytes: u64,
    /// The store images, the lowest layer first.
    pub images: Vec<StoreImage>,
    /// The size of the beginning of `initrd`, up to the store images, bytes: a complete ramdisk without them.
    pub before_images: u64,
    /// Every other file of the directory, by name.
    pub files: Vec<Entry>,
}

/// A store image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreImage {
    /// Its name in the directory.
    pub file: String,
    /// Where stage 1 looks for it in the ramdisk.
    pub path: String,
}

impl Manifest {
    /// The text of `manifest.json`.
    ///
    /// # Errors
    ///
    /// None in practice: every field is plain data.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// Describes a build with these output files.
#[must_use]
pub fn describe(
    system: &System,
    cmdline: String,
    plan: &Plan,
    before_images: u64,
    closure: &[Registered],
    files: &[Entry],
) -> Manifest {
    let file = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let images = plan.images.iter().map(|image| StoreImage { file: file(&image.path), path: image.path.clone() });
    Manifest {
        firn: env!("CARGO_PKG_VERSION").into(),
        label: system.label.clone(),
        system: system.platform.clone(),
        toplevel: system.toplevel.to_string_lossy().into_owned(),
        init: system.init.clone(),
        hand_over: system.kind,
        cmdline,
        kernel_release: system.kernel_release.clone(),
        modules: plan.modules.clone(),
        store_paths: closure.len(),
        store_bytes: closure.iter().map(|path| path.nar_size).sum(),
        images: images.collect(),
        before_images,
        files: files.to_vec(),
    }
}
