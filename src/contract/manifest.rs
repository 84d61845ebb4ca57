//! The manifest of a build: `manifest.json`, which `firn build` writes for programs, and which the other subcommands read.

use crate::contract::kind::Kind;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::fs;
use std::path::Path;

/// The name of the file in the directory of a build.
pub const FILE: &str = "manifest.json";

/// The contents of `manifest.json`. Another version of firn may have written it: a field that it does not have is empty, and a
/// field that only `firn build` needs is empty if it cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The version of firn that made the build.
    pub firn: String,
    /// The label of the system for people, such as `NixOS 25.11 (Linux 6.12)`.
    pub label: String,
    /// The platform, such as `x86_64-linux`.
    pub system: String,
    /// The system's path in the store.
    #[serde(deserialize_with = "or_empty")]
    pub toplevel: String,
    /// The system's init.
    pub init: String,
    /// The kind of the system: what it expects of stage 1 before its init.
    #[serde(deserialize_with = "or_empty")]
    pub hand_over: Option<Kind>,
    /// The parameters that the boot loader gives to the kernel, apart from its own such as `initrd=`.
    pub cmdline: String,
    /// The kernel's release (`uname -r`).
    pub kernel_release: String,
    /// The modules that every boot loads, in this order.
    pub modules: Vec<String>,
    /// The number of store paths in the images.
    #[serde(deserialize_with = "or_empty")]
    pub store_paths: usize,
    /// The size of these paths, bytes, as NARs.
    #[serde(deserialize_with = "or_empty")]
    pub store_bytes: u64,
    /// The store images, the lowest layer first.
    #[serde(deserialize_with = "or_empty")]
    pub images: Vec<ImageFile>,
    /// The size of the part of `initrd` before the store images, bytes: a ramdisk without them.
    #[serde(deserialize_with = "or_empty")]
    pub before_images: u64,
    /// Every other file of the directory, by name.
    pub files: Vec<FileEntry>,
}

/// A store image of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name in the directory.
    pub file: String,
    /// The path in the ramdisk where stage 1 looks for it.
    pub path: String,
}

/// A file of a build, or another file that firn made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
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

    /// Reads the manifest of a directory.
    ///
    /// # Errors
    ///
    /// A directory that no `firn build` made, or a manifest that is damaged.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let json = fs::read(&path)
            .with_context(|| format!("reading {}; give a directory made by `firn build`", path.display()))?;
        serde_json::from_slice(&json)
            .with_context(|| format!("{} is damaged or no manifest; build the system again", path.display()))
    }
}

/// A field's value, or its default if it has another form than this firn knows.
fn or_empty<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_other_versions() {
        let directory = tempfile::tempdir().unwrap();
        let read = |json: &str| {
            fs::write(directory.path().join(FILE), json).unwrap();
            Manifest::read(directory.path())
        };
        assert_eq!(read("{}").unwrap(), Manifest::default());
        let newer = r#"{"label": "x", "hand_over": "another-kind", "images": ["a"], "before_images": null, "more": 1}"#;
        assert_eq!(read(newer).unwrap(), Manifest { label: "x".into(), ..Manifest::default() });
        let ours = Manifest {
            hand_over: Some(Kind::NixosInit),
            images: vec![ImageFile { file: "a".into(), path: "/a".into() }],
            ..Manifest::default()
        };
        assert_eq!(read(&ours.to_json().unwrap()).unwrap(), ours);
        for bad in ["{", "[1]", r#"{"files": [{"name": "a"}]}"#] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("is damaged or no manifest; build the system again"), "{error}");
        }
    }
}
