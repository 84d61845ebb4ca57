//! The plan: a small JSON file in the ramdisk at [`PATH`]. The builder writes it and stage 1 reads it.
//!
//! The builder decides everything that is cheap to find out on the build machine, such as the load order of the modules, and writes it
//! into the plan. So stage 1 has nothing to search for.

use crate::contract::kind::Kind;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The path of the plan in the ramdisk.
pub const PATH: &str = "/firn/plan.json";

/// The version of the plan's format. A reader refuses any other version.
pub const VERSION: u32 = 4;

/// The path of the store image in the ramdisk, with or without a plan. The name is nixpkgs' (`installer/netboot/netboot.nix`).
pub const IMAGE: &str = "/nix-store.squashfs";

/// The maximum number of store images. Linux before 6.8 takes their names in one mount option of at most 255 bytes (`fsconfig`,
/// fs/fsopen.c). A test of stage 1 mounts as many.
pub const MAX_IMAGES: usize = 64;

/// The maximum size of a file that every supported kernel unpacks from a ramdisk, bytes. Linux 6.1 does not open the file as a large
/// file and fails with "write error" beyond this size; Linux 6.12 does not (init/initramfs.c).
pub const MAX_UNPACKED: u64 = (1 << 31) - 1;

/// The directory of the ramdisk whose contents stage 1 copies into the root of the system.
pub const FILES: &str = "/firn/root";

/// Directories below [`FILES`] that every ramdisk has, each after the directory above it. The kernel drops a file whose directory is
/// missing, and a boot loader such as iPXE adds files without directories. Stage 1 makes them in the root only for the files in them.
/// They are few, because every boot looks into them.
pub const FILE_DIRECTORIES: [&str; 11] = [
    "/etc",
    "/etc/nix",
    "/etc/ssh",
    "/etc/systemd",
    "/etc/systemd/network",
    "/etc/systemd/system",
    "/root",
    "/root/.ssh",
    "/root/network",
    "/var",
    "/var/lib",
];

/// The registration of the image's store paths: a file at the root of the image. The name is nixpkgs' (`lib/make-squashfs.nix`).
pub const REGISTRATION: &str = "nix-path-registration";

/// The path of the Nix database in the ramdisk, if the builder made one. It registers the store paths of all images.
pub const DATABASE: &str = "/firn/db.sqlite";

/// The modules that the mounts of the store need. A module that is built into the kernel needs no file.
pub const REQUIRED_MODULES: [&str; 3] = ["loop", "squashfs", "overlay"];

/// The instructions for stage 1, written when the ramdisk is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The [`VERSION`] of the firn that wrote the plan.
    pub version: u32,
    /// The version of the firn that wrote the plan.
    pub firn: String,
    /// The release (`uname -r`) of the kernel that the modules belong to. Other kernels refuse them.
    pub kernel_release: String,
    /// The init of the default system, which starts if the command line has no `init=`.
    pub init: String,
    /// The way to start this init.
    #[serde(default)]
    pub start: Option<Start>,
    /// Kernel modules as absolute paths in the ramdisk, in load order, decompressed.
    pub modules: Vec<String>,
    /// The `options` of the system's modprobe.d: the name under which the kernel knows a module, a space, and one parameter in the form of
    /// `finit_module(2)`. Those of the command line come after them.
    #[serde(default)]
    pub module_options: Vec<String>,
    /// The store images in the ramdisk, one to [`MAX_IMAGES`], the lowest layer first. The last one holds the registration of all.
    pub images: Vec<Image>,
    /// The Nix database of the images, if there is one.
    #[serde(default)]
    pub database: Option<Database>,
    /// Whether stage 1 compares the SHA-256 of each image with the plan at every boot.
    #[serde(default)]
    pub verify: bool,
    /// The host id of the system (NixOS' `networking.hostId`), eight hexadecimal digits.
    #[serde(default)]
    pub host_id: Option<String>,
    /// The store paths that were packed by name, sorted: the default system and the paths that were added to it. Nix keeps them with their
    /// closures. Empty in the plan of an older firn: stage 1 reads the registration of the images then.
    #[serde(default)]
    pub roots: Vec<String>,
}

/// The way to start an init. Without it, stage 1 has to read the init in the store image, which costs the decompression of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The kind of its system.
    pub kind: Kind,
    /// The absolute path of the interpreter, if the init is a script.
    pub interpreter: Option<String>,
}

/// A store image in the ramdisk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its absolute path in the ramdisk, where the kernel unpacks it. With its [`mark`](super::place::mark) in the ramdisk the kernel leaves it
    /// where the boot loader puts it.
    pub path: String,
    /// Size in bytes. Stage 1 refuses an image of another size: it is incomplete, or from another build.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// A Nix database in the ramdisk. It equals the result of `nix-store --load-db` with the registration of the images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Absolute path in the ramdisk.
    pub path: String,
    /// The version of its schema. Nix keeps it in the file `schema` next to the database.
    pub schema: u32,
}

impl Plan {
    /// The total size of all store images, bytes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.images.iter().map(|image| image.bytes).sum()
    }

    /// The plan as the text of the file.
    ///
    /// # Errors
    ///
    /// None in practice: all fields are plain data.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// Reads a plan.
    ///
    /// # Errors
    ///
    /// Text that is not a plan, or a plan of another format. The version is read first and by itself, so that the error for another
    /// format names the version and not a field that is missing.
    pub fn from_json(json: &str) -> Result<Plan> {
        let json: Value = serde_json::from_str(json)?;
        let version = json.get("version").and_then(Value::as_u64).context("the plan has no version")?;
        if version != u64::from(VERSION) {
            // Formats 1 and 2 have no version of firn.
            let of_older = if version < 3 { "0.1.0" } else { "of another version" };
            bail!(
                "firn {} made this plan in format {version}, but firn {} reads format {VERSION}; build the ramdisk again with firn \
                 and firn-init of the same version",
                json.get("firn").and_then(Value::as_str).unwrap_or(of_older),
                env!("CARGO_PKG_VERSION")
            );
        }
        Ok(serde_json::from_value(json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            version: VERSION,
            firn: "0.2.0".into(),
            kernel_release: "6.1.0-cloud".into(),
            init: "/nix/store/x/init".into(),
            start: Some(Start { kind: Kind::Classic, interpreter: Some("/nix/store/bash/bin/bash".into()) }),
            modules: vec!["/lib/modules/6.1.0-cloud/kernel/fs/overlayfs/overlay.ko".into()],
            module_options: vec!["overlay metacopy=Y".into()],
            images: vec![Image { path: IMAGE.into(), bytes: 4096, sha256: "00".repeat(32) }],
            database: Some(Database { path: DATABASE.into(), schema: 10 }),
            verify: false,
            host_id: Some("4e98920d".into()),
            roots: vec!["/nix/store/x".into()],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Plan::from_json(&plan().to_json().unwrap()).unwrap(), plan());
    }

    #[test]
    fn b_5_a_plan_of_an_older_firn_has_no_roots() {
        let mut json: serde_json::Value = serde_json::from_str(&plan().to_json().unwrap()).unwrap();
        json.as_object_mut().unwrap().remove("roots").unwrap();
        assert_eq!(Plan::from_json(&json.to_string()).unwrap(), Plan { roots: Vec::new(), ..plan() });
    }

    #[test]
    fn another_format_is_refused_with_the_firn_that_made_it() {
        for (json, maker) in [
            (r#"{"version": 2, "images": [{"path": "/a"}]}"#, "firn 0.1.0 made this plan in format 2"),
            (r#"{"version": 7, "firn": "9.1.2"}"#, "firn 9.1.2 made this plan in format 7"),
            (r#"{"version": 7, "whatever": []}"#, "firn of another version made this plan in format 7"),
        ] {
            let error = Plan::from_json(json).unwrap_err().to_string();
            assert!(error.starts_with(maker) && error.contains("build the ramdisk again"), "{error}");
        }
    }

    #[test]
    fn text_that_is_no_plan_is_an_error() {
        for text in ["", "{", "[]", "{}", r#"{"version": "1"}"#, r#"{"version": 1}"#] {
            assert!(Plan::from_json(text).is_err(), "{text:?}");
        }
    }
}
