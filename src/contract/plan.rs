//! The plan: what the builder writes into the ramdisk and stage 1 reads there.
//!
//! It is the one contract between the two halves, a small JSON document at [`PATH`]. Everything that only the build
//! machine can know cheaply is decided there and written down here, so that PID 1 has nothing to search for.

use crate::contract::kind::Kind;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Where the plan lies in the ramdisk.
pub const PATH: &str = "/firn/plan.json";

/// The format of the plan. A reader refuses any other version.
pub const VERSION: u32 = 2;

/// Where the store image lies in the ramdisk, with a plan or without: nixpkgs' name, `installer/netboot/netboot.nix`.
pub const IMAGE: &str = "/nix-store.squashfs";

/// The directory of the ramdisk in which store images lie that are not to be unpacked. No ramdisk has it, so the kernel steps
/// over what lies in it (`do_name`, init/initramfs.c), and stage 1 mounts the image where the boot loader put it.
pub const RETAINED: &str = "/firn-retained";

/// On a multiple of this, bytes, begins each of these images in the ramdisk, if nothing comes before that: a page of memory.
pub const PAGE: u64 = 4096;

/// Kernel word with which that memory stays as it is, and is [`INITRD`].
pub const RETAIN_WORD: &str = "retain_initrd";

/// The ramdisk as the boot loader put it into memory, if [`RETAIN_WORD`] is on the command line (Linux 6.8,
/// `do_populate_rootfs` in init/initramfs.c).
pub const INITRD: &str = "/sys/firmware/initrd";

/// How many store images there can be: the kernel takes 255 bytes for an option of a mount (`fsconfig`, fs/fsopen.c), which is
/// room for the paths of so many layers.
pub const MAX_IMAGES: usize = 15;

/// Of one file in a ramdisk, a kernel unpacks so much, bytes: more it refuses to write, to a file that it has not opened as a large one
/// (init/initramfs.c; 6.1 fails with "write error", 6.12 does not).
pub const MAX_UNPACKED: u64 = (1 << 31) - 1;

/// What lies below this directory of the ramdisk is copied into the root of the system.
pub const FILES: &str = "/firn/root";

/// The registration of the image's store paths, at the root of the image: nixpkgs' name, `lib/make-squashfs.nix`.
pub const REGISTRATION: &str = "nix-path-registration";

/// Where the ramdisk has the Nix database of the image's store paths, if it was made when the ramdisk was built.
pub const DATABASE: &str = "/firn/db.sqlite";

/// Modules that mounting the store needs. A kernel that has one built in does without the file.
pub const REQUIRED_MODULES: [&str; 3] = ["loop", "squashfs", "overlay"];

/// Kernel word that generated command lines carry: with it the initramfs is a ramfs and may fill all of the memory; the
/// tmpfs that is the default ends at half of what is free while the ramdisk is still there.
pub const RAMFS_WORD: &str = "rootfstype=ramfs";

/// How firn's own words on the kernel command line begin.
pub const PREFIX: &str = "firn.";

/// firn's own words, each with what it takes and does, as the README has them.
pub const WORDS: &[(&str, &str)] = &[
    (
        "firn.store",
        "another path of the store image in the ramdisk, or several with commas between, the lowest layer first",
    ),
    (
        "firn.modules",
        "modules of the ramdisk to load, too: names or aliases with commas between; several such words add up",
    ),
    (
        "firn.modules.skip",
        "modules not to load; `module_blacklist=`, `modprobe.blacklist=` and `rd.driver.blacklist=` say the same",
    ),
    ("firn.root.size", "how much of the memory the root may take: `80%`, `4g`; half of it by default"),
    ("firn.root.inodes", "how many files and directories the root may have; `0` is no limit"),
    ("firn.rw-store.size", "the same for what is written to the store"),
    ("firn.rw-store.inodes", "the same for what is written to the store"),
    (
        "firn.register",
        "`prebuilt` (the default): register the store by the database in the ramdisk, or as `load` if it has none; `load`: by the \
         system's Nix; go on if either fails; `required`: as `prebuilt`, or the boot fails; `none`: do not",
    ),
    ("firn.etc", "whether an `/etc` that is an overlay can be written to: `mutable` (the default) or `immutable`"),
    ("firn.verify", "`size` (the default): the store image has to be whole; `full`: and its SHA-256 that of the plan"),
    (
        "firn.hostid",
        "eight hexadecimal digits that become `/etc/hostid` before modules are loaded: NixOS' `networking.hostId`",
    ),
    (
        "firn.on_failure",
        "what to do when the boot fails: `menu`, or after some seconds `reboot,30`, `poweroff,30`, `panic,30`",
    ),
    ("firn.log", "what stage 1 writes to the kernel log: `off`, `error`, `warn`, `info` (the default) or `debug`"),
];

/// What stage 1 is to do, decided when the ramdisk was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`] at the time of writing.
    pub version: u32,
    /// `uname -r` of the kernel that the modules belong to; no other kernel takes them.
    pub kernel_release: String,
    /// The init of the system that starts when the command line has no `init=`.
    pub init: String,
    /// How that init is started.
    #[serde(default)]
    pub start: Option<Start>,
    /// Kernel modules as absolute paths in the ramdisk, in load order, decompressed.
    pub modules: Vec<String>,
    /// The store images in the ramdisk, one to [`MAX_IMAGES`], the lowest layer first. The last one has the registration of all.
    pub images: Vec<Image>,
    /// The Nix database of the images, if there is one.
    #[serde(default)]
    pub database: Option<Database>,
    /// Whether stage 1 compares the images with their checksums at each boot.
    #[serde(default)]
    pub verify: bool,
    /// The system's host id as `networking.hostId` has it, eight hexadecimal digits.
    #[serde(default)]
    pub host_id: Option<String>,
}

/// How an init is started: what stage 1 would otherwise have to read in the store image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// What its system expects of stage 1.
    pub kind: Kind,
    /// The program that executes it, if it is a script.
    pub interpreter: Option<String>,
}

/// A store image as the ramdisk holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Absolute path in the ramdisk; may be a symlink. Below [`RETAINED`] it is not unpacked.
    pub path: String,
    /// Size in bytes. Anything else at boot means that the ramdisk did not unpack whole.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// A Nix database as the ramdisk holds it: what `nix-store --load-db` would make of the image's registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Absolute path in the ramdisk.
    pub path: String,
    /// The version of its schema, which Nix keeps in a file beside it.
    pub schema: u32,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Plan {
    /// The size of all store images, bytes.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.images.iter().map(|image| image.bytes).sum()
    }

    /// Whether store images stay where the boot loader puts them.
    #[must_use]
    pub fn is_retained(&self) -> bool {
        self.images.iter().any(|image| Path::new(&image.path).starts_with(RETAINED))
    }

    /// The plan as it stands in the ramdisk.
    ///
    /// # Errors
    ///
    /// None in practice: every field is plain data.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// Reads a plan.
    ///
    /// # Errors
    ///
    /// Text that is no plan, or the plan of a firn whose format differs from this one's. The version is read first and
    /// by itself, so that a newer plan is called newer and not malformed.
    pub fn from_json(json: &str) -> anyhow::Result<Plan> {
        let Version { version } = serde_json::from_str(json)?;
        anyhow::ensure!(
            version == VERSION,
            "the plan has format {version} and this firn-init reads format {VERSION}: firn-init and the plan come from \
             different versions of firn; build the ramdisk again with one of them"
        );
        Ok(serde_json::from_str(json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            version: VERSION,
            kernel_release: "6.1.0-cloud".into(),
            init: "/nix/store/x/init".into(),
            start: Some(Start { kind: Kind::Classic, interpreter: Some("/nix/store/bash/bin/bash".into()) }),
            modules: vec!["/lib/modules/6.1.0-cloud/kernel/fs/overlayfs/overlay.ko".into()],
            images: vec![Image { path: IMAGE.into(), bytes: 4096, sha256: "00".repeat(32) }],
            database: Some(Database { path: DATABASE.into(), schema: 10 }),
            verify: false,
            host_id: Some("4e98920d".into()),
        }
    }

    #[test]
    fn the_readme_has_every_word() {
        let readme = include_str!("../../README.md");
        for (word, text) in WORDS {
            assert!(readme.contains(&format!("| `{word}=` | {text} |")), "{word}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Plan::from_json(&plan().to_json().unwrap()).unwrap(), plan());
    }

    #[test]
    fn another_format_is_named_and_not_called_malformed() {
        let error = Plan::from_json(r#"{"version": 7, "whatever": []}"#).unwrap_err().to_string();
        assert!(error.contains("format 7") && error.contains("build the ramdisk again"), "{error}");
    }

    #[test]
    fn text_that_is_no_plan_is_an_error() {
        for text in ["", "{", "[]", "{}", r#"{"version": "1"}"#, r#"{"version": 1}"#] {
            assert!(Plan::from_json(text).is_err(), "{text:?}");
        }
    }
}
