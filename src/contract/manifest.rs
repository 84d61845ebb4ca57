//! The manifest of a build: `manifest.json`. `firn build` writes it; the other subcommands and other programs read it.

use crate::contract::kind::Kind;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use std::fs;
use std::path::Path;

/// The name of the file in the build directory.
pub const FILE: &str = "manifest.json";

/// The contents of `manifest.json`. Another version of firn may have written it. A missing field is read as empty, and so is an
/// unreadable field that only `firn build` needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The version of firn that made the build.
    pub firn: String,
    /// The label of the system, for people to read, such as `NixOS 25.11 (Linux 6.12)`.
    pub label: String,
    /// The platform, such as `x86_64-linux`.
    pub system: String,
    /// The system's path in the store.
    #[serde(deserialize_with = "or_empty")]
    pub toplevel: String,
    /// The system's init.
    pub init: String,
    /// The kind of the system: it decides the steps of stage 1 before the init.
    #[serde(deserialize_with = "or_empty")]
    pub hand_over: Option<Kind>,
    /// The kernel parameters that the boot loader has to pass, without its own ones such as `initrd=`.
    pub cmdline: String,
    /// The kernel's release (`uname -r`).
    pub kernel_release: String,
    /// The modules that every boot loads, in this order.
    pub modules: Vec<String>,
    /// The number of store paths in the images.
    #[serde(deserialize_with = "or_empty")]
    pub store_paths: usize,
    /// The total size of these paths as NARs, bytes.
    #[serde(deserialize_with = "or_empty")]
    pub store_bytes: u64,
    /// The store images, the lowest layer first.
    #[serde(deserialize_with = "or_empty")]
    pub images: Vec<ImageFile>,
    /// The size of the part of `initrd` before the store images, bytes. This part is a complete ramdisk without store images.
    #[serde(deserialize_with = "or_empty")]
    pub before_images: u64,
    /// All other files of the directory.
    pub files: Vec<FileEntry>,
}

/// A store image of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name in the directory.
    pub file: String,
    /// Its path in the ramdisk, where stage 1 looks for it.
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
    /// The manifest as the text of the file.
    ///
    /// # Errors
    ///
    /// None in practice: all fields are plain data.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads the manifest of a directory.
    ///
    /// # Errors
    ///
    /// A directory that `firn build` did not make, or a damaged manifest.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let json = fs::read(&path)
            .with_context(|| format!("reading {}; give a directory made by `firn build`", path.display()))?;
        serde_json::from_slice(&json)
            .with_context(|| format!("{} is damaged or is not a manifest; build the system again", path.display()))
    }
}

/// The value of a field, or the default if this firn does not know its form.
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
            assert!(error.contains("is damaged or is not a manifest; build the system again"), "{error}");
        }
    }
}
