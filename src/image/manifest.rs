//! What was made, for machines to read.

use super::nix::Registered;
use super::output::Directory;
use super::progress::Progress;
use super::toplevel::System;
use crate::digest::sha256;
use crate::kind::Kind;
use crate::plan::Plan;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::File;
use std::io;

/// The contents of `manifest.json`.
#[derive(Debug, Serialize)]
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
    /// Every other file of the directory, by name.
    pub files: Vec<Entry>,
}

/// A file that was made.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its name in the directory.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
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

impl Entry {
    /// Describes the file that will be called `name`.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn of(output: &Directory, name: &str, progress: Progress) -> Result<Self> {
        let path = output.staged(name);
        let describe = || -> io::Result<_> {
            let file = File::open(&path)?;
            let step = progress.step("Taking a checksum", file.metadata()?.len());
            let (bytes, sha256) = sha256(step.reading(file))?;
            step.done();
            Ok(Self { name: name.into(), bytes, sha256 })
        };
        describe().with_context(|| format!("reading {}", path.display()))
    }
}

/// Describes what lies in `output`, of which `store` is described already.
///
/// # Errors
///
/// A file that cannot be read.
pub fn describe(
    system: &System,
    plan: &Plan,
    closure: &[Registered],
    output: &Directory,
    store: &Entry,
    progress: Progress,
) -> Result<Manifest> {
    let entry = |name: &String| if *name == store.name { Ok(store.clone()) } else { Entry::of(output, name, progress) };
    let files = output.names().iter().map(entry).collect::<Result<_>>()?;
    Ok(Manifest {
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
        files,
    })
}
