//! `/etc` of a system that has it as an overlay (`system.etc.overlay.enable`): an image with all names, modes and owners, over
//! a directory with the contents.
//!
//! What the units `run-nixos-etc\x2dmetadata.mount` and `sysroot-etc.mount` of NixOS' own initrd do
//! (nixpkgs, `nixos/modules/system/etc/etc-activation.nix`), to the letter of the options.

use crate::boot::kernel::loop_device::Backing;
use crate::boot::kernel::mount::{Filesystem, make_directory};
use crate::boot::kernel::release::kernel_release;
use crate::boot::parameters::options::Etc;
use crate::boot::store::NewRoot;
use crate::contract::nixos_init::{Config, EtcOverlay, kernel_has_etc_overlay};
use anyhow::{Context, Result};
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use std::path::Path;

/// Where the image is mounted, which the running system expects to find it on.
const METADATA: &str = "/run/nixos-etc-metadata";
const UPPER: &str = "/.rw-etc/upper";
const WORK: &str = "/.rw-etc/work";

/// Says that `/etc` is the directory of the running system: from here on, files can be put there.
pub struct InPlace(());

/// Mounts `/etc`, if the system has it as an overlay; `has_etc` says whether an earlier attempt did, and does so afterwards.
///
/// # Errors
///
/// A mount that the kernel refuses: it has to be 6.6 or newer.
pub fn mount(root: &NewRoot, config: &Config, etc: Etc, has_etc: &mut bool) -> Result<InPlace> {
    if let (Some(overlay), false) = (&config.etc_overlay, *has_etc) {
        mount_overlay(root, overlay, etc)?;
        *has_etc = true;
    }
    Ok(InPlace(()))
}

fn mount_overlay(root: &NewRoot, overlay: &EtcOverlay, etc: Etc) -> Result<()> {
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
    // What an attempt that failed has left.
    while unmount(METADATA, UnmountFlags::DETACH).is_ok() {}
    let device = Backing::open(&overlay.metadata_image)?.attach()?;
    let metadata = Filesystem {
        kind: "erofs",
        source: &device.path,
        attributes: locked | MountAttrFlags::MOUNT_ATTR_RDONLY,
        options: &[],
        optional: &[],
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
    let overlay = Filesystem { kind: "overlay", source: "overlay", attributes, options: &options, optional: &[] };
    overlay.mount(Path::new("/etc"))
}
