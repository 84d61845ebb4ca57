//! The overlay for `/etc` that a system may want (NixOS' `system.etc.overlay.enable`).

use crate::contract::kind::Kind;
use crate::contract::nixos_init::{self, Config, EtcOverlay};
use crate::contract::release::at_least;
use anyhow::{Context, Result, ensure};
use bootspec::JSON_FILENAME;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Whether stage 1 has to mount an overlay on the `/etc` of a system with a kernel of this release.
///
/// # Errors
///
/// A `boot.json` that cannot be read or lacks what its system needs, and a kernel that cannot read the image of the overlay.
pub fn of(toplevel: &Path, kind: Kind, kernel_release: &str) -> Result<bool> {
    let is_there = is_there(toplevel, kind)?;
    ensure!(
        !is_there || kernel_reads_image(kernel_release),
        "{} has an overlay for /etc, whose image only Linux 5.15 or newer can read, and its kernel is {kernel_release}; build it with \
         a newer kernel, or with system.etc.overlay.enable = false",
        toplevel.display()
    );
    Ok(is_there)
}

/// Whether there is one: the part of the bootspec that nixos-init reads says so, or links of the toplevel.
fn is_there(toplevel: &Path, kind: Kind) -> Result<bool> {
    if kind == Kind::Classic {
        return Ok(false);
    }
    let path = toplevel.join(JSON_FILENAME);
    let config = match fs::read_to_string(&path) {
        Ok(json) => Config::parse(&json).with_context(|| format!("reading {}", path.display()))?.0,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    ensure!(config.is_some() || kind != Kind::NixosInit, "{}", nixos_init::missing(&toplevel.to_string_lossy()));
    Ok(config.is_some_and(|config| config.etc_overlay.is_some()) || EtcOverlay::linked(toplevel).is_some())
}

/// Whether a kernel of this release (`uname -r`) can read an image of `/etc`: those of NixOS, made by mkcomposefs, have the sizes of
/// the files in inodes of chunks (Linux 5.15, `EROFS_INODE_CHUNK_BASED`). True for a release that does not begin with a version: then
/// the boot shows it.
fn kernel_reads_image(release: &str) -> bool {
    at_least(release, (5, 15)).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_3_kernels_that_read_the_image_of_etc() {
        for (release, expected) in [
            ("5.10.223", false),
            ("5.14", false),
            ("5.15.200", true),
            ("6.1.0-56-cloud-amd64", true),
            ("7.3.4", true),
            ("next", true),
        ] {
            assert_eq!(kernel_reads_image(release), expected, "{release}");
        }
    }
}
