//! What a system tells nixos-init: the extension `org.nixos.nixos-init.v1` of its bootspec (`boot.json`, RFC 125), as
//! nixpkgs' `nixos/modules/system/boot/nixos-init.nix` writes it.
//!
//! Every recent NixOS system has it, whatever it is started by: the parts of an `/etc` that is an overlay are found here, too.

use crate::contract::release::at_least;
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The name of the extension.
const EXTENSION: &str = "org.nixos.nixos-init.v1";

/// The keys that [`Config`] has, and those that ask for nothing at a boot: nixos-init mounts `special_filesystems` when a
/// system is switched to another configuration; stage 1 and systemd mount them at a boot.
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

/// What the extension asks for. Everything is optional: NixOS leaves out what a system does without.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Config {
    /// Options that the mount of `/nix/store` is to have: words of mount(8).
    pub nix_store_mount_opts: Vec<String>,
    /// Directory in which the kernel looks for firmware.
    pub firmware: Option<String>,
    /// What the kernel runs to load a module.
    pub modprobe_binary: Option<String>,
    /// What `/bin/sh` is a link to. No link if this is empty; whatever there is if it is absent.
    pub sh_binary: Option<String>,
    /// The same for `/usr/bin/env`.
    pub env_binary: Option<String>,
    /// The two parts of `/etc`, if it is an overlay.
    pub etc_overlay: Option<EtcOverlay>,
}

/// What an `/etc` that is an overlay is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcOverlay {
    /// The names, modes and owners: an erofs image.
    pub metadata_image: String,
    /// The contents of the files: the directory that the image refers to.
    pub basedir: String,
}

impl Config {
    /// Reads a `boot.json`: the extension if it is there, and the names of its keys that this firn does not know.
    ///
    /// # Errors
    ///
    /// Text that is no JSON, or a value of another type than NixOS writes.
    pub fn parse(json: &str) -> Result<(Option<Self>, Vec<String>)> {
        let document: Value = serde_json::from_str(json)?;
        let Some(extension) = document.get(EXTENSION) else { return Ok((None, Vec::new())) };
        let extension = extension.as_object().with_context(|| format!("{EXTENSION} is no object"))?;
        let text = |key: &str| match extension.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => bail!("{key} is no string"),
        };
        let words = |key: &str| match extension.get(key) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(list) => list.as_array()?.iter().map(|word| word.as_str().map(Into::into)).collect(),
        };
        let config = Self {
            nix_store_mount_opts: words("nix_store_mount_opts")
                .context("nix_store_mount_opts is no list of strings")?,
            firmware: text("firmware")?,
            modprobe_binary: text("modprobe_binary")?,
            sh_binary: text("sh_binary")?,
            env_binary: text("env_binary")?,
            etc_overlay: match (text("etc_metadata_image")?, text("etc_basedir")?) {
                (Some(metadata_image), Some(basedir)) => Some(EtcOverlay { metadata_image, basedir }),
                (None, None) => None,
                _ => bail!("it has one of etc_metadata_image and etc_basedir without the other"),
            },
        };
        let unknown = extension.keys().filter(|key| !KEYS.contains(&key.as_str()));
        Ok((Some(config), unknown.cloned().collect()))
    }
}

/// The sentence for a system that is made for nixos-init and does not say what for.
#[must_use]
pub fn missing(toplevel: &str) -> String {
    format!(
        "{toplevel} has neither an init that is a script nor prepare-root, and its boot.json no extension {EXTENSION} \
         that says how to start it; build the system again with its own nixpkgs"
    )
}

/// Whether a kernel of this release (`uname -r`) can have an overlay for `/etc`, whose layer of contents is one that only the
/// other layer refers to (`lowerdir=metadata::contents`, Linux 6.6). Of a release of another form only the kernel knows.
#[must_use]
pub fn kernel_has_etc_overlay(release: &str) -> bool {
    at_least(release, (6, 6)).unwrap_or(true)
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
    fn what_is_known_is_read() {
        // A key that is read is one that cannot be a number.
        for key in KEYS.iter().filter(|key| **key != "special_filesystems") {
            assert!(Config::parse(&format!(r#"{{"org.nixos.nixos-init.v1": {{"{key}": 1}}}}"#)).is_err(), "{key}");
        }
    }

    #[test]
    fn what_is_no_extension() {
        for json in
            ["", "[", r#"{"org.nixos.nixos-init.v1": 1}"#, r#"{"org.nixos.nixos-init.v1": {"etc_basedir": "/x"}}"#]
        {
            assert!(Config::parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn kernels_with_an_etc_overlay() {
        for (release, expected) in [
            ("6.1.0-56-cloud-amd64", false),
            ("5.15.200", false),
            ("6.5", false),
            ("6.6.0", true),
            ("6.12.95+deb12-cloud-amd64", true),
            ("7.3.4", true),
            ("next", true),
        ] {
            assert_eq!(kernel_has_etc_overlay(release), expected, "{release}");
        }
    }
}
