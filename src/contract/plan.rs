//! The plan: what the builder writes into the ramdisk and stage 1 reads there.
//!
//! It is the one contract between the two halves, a small JSON document at [`PATH`]. Everything that only the build
//! machine can know cheaply is decided there and written down here, so that PID 1 has nothing to search for.

use crate::contract::kind::Kind;
use crate::contract::place::Place;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Where the plan lies in the ramdisk.
pub const PATH: &str = "/firn/plan.json";

/// The format of the plan. A reader refuses any other version.
pub const VERSION: u32 = 3;

/// Where the store image lies in the ramdisk, with a plan or without: nixpkgs' name, `installer/netboot/netboot.nix`.
pub const IMAGE: &str = "/nix-store.squashfs";

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

/// What stage 1 is to do, decided when the ramdisk was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`] at the time of writing.
    pub version: u32,
    /// The version of the firn that wrote it.
    pub firn: String,
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
    /// Where stage 1 finds it.
    pub place: Place,
    /// Size in bytes. Any other size at boot means that the ramdisk did not arrive whole.
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

/// The part of a plan that every format has; formats 1 and 2 do not name the firn.
#[derive(Deserialize)]
struct Header {
    version: u32,
    firn: Option<String>,
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
        self.images.iter().any(|image| matches!(image.place, Place::Retained(_)))
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
    pub fn from_json(json: &str) -> Result<Plan> {
        let Header { version, firn } = serde_json::from_str(json)?;
        if version != VERSION {
            let firn = firn.unwrap_or_else(|| if version < 3 { "0.1.0".into() } else { "of another version".into() });
            bail!(
                "firn {firn} made this plan, of format {version}, and firn {} reads format {VERSION}: build the ramdisk again, with \
                 firn and firn-init of one version",
                env!("CARGO_PKG_VERSION")
            );
        }
        Ok(serde_json::from_str(json)?)
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
            images: vec![Image { place: Place::Unpacked(IMAGE.into()), bytes: 4096, sha256: "00".repeat(32) }],
            database: Some(Database { path: DATABASE.into(), schema: 10 }),
            verify: false,
            host_id: Some("4e98920d".into()),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Plan::from_json(&plan().to_json().unwrap()).unwrap(), plan());
    }

    #[test]
    fn another_format_is_refused_with_the_firn_that_made_it() {
        for (json, maker) in [
            (r#"{"version": 2, "images": [{"path": "/a"}]}"#, "firn 0.1.0 made this plan, of format 2"),
            (r#"{"version": 7, "firn": "9.1.2"}"#, "firn 9.1.2 made this plan, of format 7"),
            (r#"{"version": 7, "whatever": []}"#, "firn of another version made this plan, of format 7"),
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
