//! `/etc` of a system that has it as an overlay (`system.etc.overlay.enable`): an image with all names, modes and owners, over
//! a directory with the contents.
//!
//! What the units `run-nixos-etc\x2dmetadata.mount` and `sysroot-etc.mount` of NixOS' own initrd do
//! (nixpkgs, `nixos/modules/system/etc/etc-activation.nix`), to the letter of the options.

use crate::boot::kernel::loop_device::{self, Source};
use crate::boot::kernel::mount::{Filesystem, make_directory};
use crate::boot::plan::kernel_release;
use crate::boot::store::NewRoot;
use crate::boot::words::options::Etc;
use crate::contract::nixos_init::{Config, EtcOverlay, kernel_has_etc_overlay};
use anyhow::{Context, Result};
use rustix::mount::MountAttrFlags;
use std::path::Path;

/// Where the image is mounted, which the running system expects to find it on.
const METADATA: &str = "/run/nixos-etc-metadata";
const UPPER: &str = "/.rw-etc/upper";
const WORK: &str = "/.rw-etc/work";

/// Mounts `/etc`, if the system has it as an overlay.
///
/// # Errors
///
/// A mount that the kernel refuses: it has to be 6.6 or newer.
pub fn mount(root: &NewRoot, config: &Config, etc: Etc) -> Result<()> {
    let Some(overlay) = &config.etc_overlay else { return Ok(()) };
    // All paths stay in /proc/mounts for ever: from inside they are those of the running system.
    root.inside(|| mount_inside(overlay, etc)).with_context(|| match kernel_release() {
        Ok(release) if !kernel_has_etc_overlay(&release) => format!(
            "this system has an overlay for /etc, which takes Linux 6.6 or newer, and this is {release}: build the system with \
             a newer kernel, or with system.etc.overlay.enable = false"
        ),
        _ => "the overlay for /etc".into(),
    })
}

fn mount_inside(overlay: &EtcOverlay, etc: Etc) -> Result<()> {
    let locked = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let device = loop_device::attach(&Source::open(&overlay.metadata_image)?)?;
    let metadata = Filesystem {
        kind: "erofs",
        source: &device.path,
        attributes: locked | MountAttrFlags::MOUNT_ATTR_RDONLY,
        options: &[],
        wishes: &[],
    };
    metadata.mount(Path::new(METADATA))?;

    let layers = format!("{METADATA}::{}", overlay.basedir);
    let mut options = vec![("redirect_dir", "on"), ("metacopy", "on"), ("lowerdir", &layers)];
    let attributes = match etc {
        Etc::Mutable => {
            make_directory(UPPER)?;
            make_directory(WORK)?;
            options.extend([("upperdir", UPPER), ("workdir", WORK)]);
            locked
        }
        Etc::Immutable => locked | MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    let overlay = Filesystem { kind: "overlay", source: "overlay", attributes, options: &options, wishes: &[] };
    overlay.mount(Path::new("/etc"))
}
