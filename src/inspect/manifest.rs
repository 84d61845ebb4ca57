//! What a build says of itself in its `manifest.json`.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Of the manifest what there is to look at, whichever version of firn wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The version of firn that made it.
    pub firn: String,
    /// For people, such as `NixOS 25.11 (Linux 6.12)`.
    pub label: String,
    /// Such as `x86_64-linux`.
    pub system: String,
    /// The system's init.
    pub init: String,
    /// What the boot loader gives to the kernel.
    pub cmdline: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// The modules that every boot loads, in this order.
    pub modules: Vec<String>,
    /// Every other file of the directory.
    pub files: Vec<Described>,
}

/// A file as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its name in the directory.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// Reads the manifest of a directory, or says nothing for one that `firn ipxe` or `firn kexec` made, which has none.
///
/// # Errors
///
/// As below.
pub fn read_if_any(directory: &Path) -> Result<Option<Manifest>> {
    let has = |name: &str| directory.join(name).exists();
    let tree = !has("manifest.json") && has("bzImage") && (has("initrd") || has("initrd.gz"));
    if tree { Ok(None) } else { read(directory).map(Some) }
}

/// Reads the manifest of a directory.
///
/// # Errors
///
/// A directory that no `firn build` made, or a manifest that is damaged.
pub fn read(directory: &Path) -> Result<Manifest> {
    let path = directory.join("manifest.json");
    let json = fs::read(&path).with_context(|| {
        format!("reading {}; give a directory that firn build made, or a single file", path.display())
    })?;
    serde_json::from_slice(&json).with_context(|| format!("{} is no manifest; build the system again", path.display()))
}
