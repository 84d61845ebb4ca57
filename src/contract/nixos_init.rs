//! The configuration of nixos-init: the extension `org.nixos.nixos-init.v1` of its bootspec (`boot.json`, RFC 125), as
//! nixpkgs' `nixos/modules/system/boot/nixos-init.nix` writes it.
//!
//! Every recent NixOS system has it, whatever its kind: it names the two parts of an overlay for `/etc`.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The name of the extension.
const EXTENSION: &str = "org.nixos.nixos-init.v1";

/// The keys of [`Config`], and `special_filesystems`, which a boot ignores: nixos-init mounts these file systems when a running
/// system switches to another configuration; at a boot, stage 1 and systemd mount them.
const KEYS: [&str; 8] = [
    "nix_store_mount_opts",
    "firmware",
    "modprobe_binary",
    "sh_binary",
    "env_binary",
    "etc_metadata_image",
    "etc_basedir",
    "special_filesystems",
];

/// The values of the extension. Each is optional: NixOS omits the values that a system does not use.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Config {
    /// Mount options for `/nix/store`, as in mount(8).
    pub nix_store_mount_opts: Vec<String>,
    /// The directory in which the kernel looks for firmware.
    pub firmware: Option<String>,
    /// The program that the kernel runs to load a module.
    pub modprobe_binary: Option<String>,
    /// The target of the link `/bin/sh`. An empty string removes the link; `None` leaves it unchanged.
    pub sh_binary: Option<String>,
    /// The target of the link `/usr/bin/env`, with the same rules.
    pub env_binary: Option<String>,
    /// The two parts of `/etc`, if the system has an overlay for it.
    pub etc_overlay: Option<EtcOverlay>,
}

/// The two parts of an overlay for `/etc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcOverlay {
    /// The names, modes and owners: an erofs image.
    pub metadata_image: String,
    /// The contents of the files: the directory that the image refers to.
    pub basedir: String,
}

impl EtcOverlay {
    /// The two parts that links of a toplevel name. The bootspec of NixOS 24.11 to 25.11 lacks the two keys, and its toplevel has these links
    /// (nixpkgs, `nixos/modules/system/activation/top-level.nix`). firn's module makes them for NixOS 24.05.
    #[must_use]
    pub fn linked(toplevel: &Path) -> Option<Self> {
        let target = |name| Some(fs::read_link(toplevel.join(name)).ok()?.to_str()?.to_owned());
        Some(Self { metadata_image: target("etc-metadata-image")?, basedir: target("etc-basedir")? })
    }
}

impl Config {
    /// Reads a `boot.json`. Returns the extension, if there is one, and the keys of it that this firn does not know.
    ///
    /// # Errors
    ///
    /// Text that is not JSON, or a value of a type that NixOS does not write.
    pub fn parse(json: &str) -> Result<(Option<Self>, Vec<String>)> {
        let document: Value = serde_json::from_str(json)?;
        let Some(extension) = document.get(EXTENSION) else { return Ok((None, Vec::new())) };
        let extension = extension.as_object().with_context(|| format!("{EXTENSION} is not an object"))?;
        let text = |key: &str| match extension.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => bail!("{key} is not a string"),
        };
        let strings = |key: &str| match extension.get(key) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(list) => list.as_array()?.iter().map(|text| text.as_str().map(Into::into)).collect(),
        };
        let config = Self {
            nix_store_mount_opts: strings("nix_store_mount_opts")
                .context("nix_store_mount_opts is not a list of strings")?,
            firmware: text("firmware")?,
            modprobe_binary: text("modprobe_binary")?,
            sh_binary: text("sh_binary")?,
            env_binary: text("env_binary")?,
            etc_overlay: match (text("etc_metadata_image")?, text("etc_basedir")?) {
                (Some(metadata_image), Some(basedir)) => Some(EtcOverlay { metadata_image, basedir }),
                (None, None) => None,
                _ => bail!("it has only one of etc_metadata_image and etc_basedir; an overlay for /etc needs both"),
            },
        };
        let unknown = extension.keys().filter(|key| !KEYS.contains(&key.as_str()));
        Ok((Some(config), unknown.cloned().collect()))
    }
}

/// The error message for a system that is built for nixos-init and lacks the extension.
#[must_use]
pub fn missing(toplevel: &str) -> String {
    format!(
        "{toplevel} has no init script, no prepare-root, and no extension {EXTENSION} in its boot.json: firn does not know how to start \
         it; build the system again with its own nixpkgs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions() {
        let json = r#"{
            "org.nixos.bootspec.v1": { "init": "/nix/store/x/init", "kernelParams": [] },
            "org.nixos.nixos-init.v1": {
                "env_binary": "/nix/store/coreutils/bin/env",
                "etc_basedir": "/nix/store/etc-lowerdir",
                "etc_confext": { "image": "/nix/store/confext" },
                "etc_metadata_image": "/nix/store/etc-metadata.erofs",
                "firmware": "/nix/store/firmware/lib/firmware",
                "modprobe_binary": null,
                "nix_store_mount_opts": ["ro", "nosuid", "nodev"],
                "sh_binary": "",
                "special_filesystems": [{ "mountpoint": "/run/keys", "device": "ramfs", "options": [], "fstype": "ramfs" }]
            }
        }"#;
        let config = Config {
            nix_store_mount_opts: ["ro", "nosuid", "nodev"].map(Into::into).into(),
            firmware: Some("/nix/store/firmware/lib/firmware".into()),
            modprobe_binary: None,
            sh_binary: Some(String::new()),
            env_binary: Some("/nix/store/coreutils/bin/env".into()),
            etc_overlay: Some(EtcOverlay {
                metadata_image: "/nix/store/etc-metadata.erofs".into(),
                basedir: "/nix/store/etc-lowerdir".into(),
            }),
        };
        assert_eq!(Config::parse(json).unwrap(), (Some(config), vec!["etc_confext".into()]));
        assert_eq!(Config::parse(r#"{"org.nixos.bootspec.v1": {}}"#).unwrap(), (None, vec![]));
        assert_eq!(Config::parse(r#"{"org.nixos.nixos-init.v1": {}}"#).unwrap(), (Some(Config::default()), vec![]));
    }

    #[test]
    fn every_key_is_read() {
        // A key that is read cannot be a number.
        for key in KEYS.iter().filter(|key| **key != "special_filesystems") {
            assert!(Config::parse(&format!(r#"{{"org.nixos.nixos-init.v1": {{"{key}": 1}}}}"#)).is_err(), "{key}");
        }
    }

    #[test]
    fn documents_without_a_valid_extension() {
        for json in
            ["", "[", r#"{"org.nixos.nixos-init.v1": 1}"#, r#"{"org.nixos.nixos-init.v1": {"etc_basedir": "/x"}}"#]
        {
            assert!(Config::parse(json).is_err(), "{json}");
        }
    }
}
