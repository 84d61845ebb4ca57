//! What was made, for machines to read.

use super::nix::Registered;
use super::output::Directory;
use super::progress::Progress;
use super::toplevel::System;
use crate::plan::Plan;
use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};

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
    /// What the boot loader gives to the kernel, apart from words of its own such as `initrd=`.
    pub cmdline: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// Modules in the ramdisk, in load order.
    pub modules: Vec<String>,
    /// How many store paths the image holds.
    pub store_paths: usize,
    /// The size of these paths, bytes, as NARs.
    pub store_bytes: u64,
    /// Every other file of the directory, by name.
    pub files: Vec<Entry>,
}

/// A file that was made.
#[derive(Debug, Serialize)]
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

/// Describes what lies in `output`.
///
/// # Errors
///
/// A file that cannot be read.
pub fn describe(
    system: &System,
    plan: &Plan,
    closure: &[Registered],
    output: &Directory,
    progress: Progress,
) -> Result<Manifest> {
    let mut files = Vec::new();
    let names = output.names();
    let total = names.iter().filter_map(|name| fs::metadata(output.staged(name)).ok()).map(|file| file.len()).sum();
    let step = progress.step("Taking checksums", total);
    for name in names {
        let path = output.staged(name);
        let (bytes, sha256) =
            digest(step.reading(File::open(&path)?)).with_context(|| format!("reading {}", path.display()))?;
        files.push(Entry { name: name.clone(), bytes, sha256 });
    }
    step.done();
    Ok(Manifest {
        firn: env!("CARGO_PKG_VERSION").into(),
        label: system.label.clone(),
        system: system.platform.clone(),
        toplevel: system.toplevel.to_string_lossy().into_owned(),
        init: system.init.clone(),
        cmdline: system.cmdline(),
        kernel_release: system.kernel_release.clone(),
        modules: plan.modules.clone(),
        store_paths: closure.len(),
        store_bytes: closure.iter().map(|path| path.nar_size).sum(),
        files,
    })
}

/// Length and SHA-256 of all that `reader` gives.
fn digest(mut reader: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        bytes += length as u64;
    }
    Ok((bytes, hex::encode(hasher.finalize())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn digests() {
        let (bytes, sha256) = super::digest(&b"abc"[..]).unwrap();
        assert_eq!(bytes, 3);
        // FIPS 180-2, appendix B.1
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
