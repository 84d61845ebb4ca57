//! The overlay for `/etc` (NixOS' `system.etc.overlay.enable`): an image with all names, modes and owners, over a directory with the
//! contents.
//!
//! The mounts and their options are those of the units `run-nixos-etc\x2dmetadata.mount` and `sysroot-etc.mount` in NixOS' own
//! ramdisk (nixpkgs, `nixos/modules/system/etc/etc-activation.nix`).

use crate::boot::disk::space::MEMORY;
use crate::boot::kernel::loop_device::Backing;
use crate::boot::kernel::mount::{Filesystem, make_directory};
use crate::boot::kernel::release::kernel_release;
use crate::boot::mounted::Mounted;
use crate::boot::parameters::options::Etc;
use crate::boot::store::NewRoot;
use crate::contract::nixos_init::{Config, EtcOverlay, kernel_has_etc_overlay};
use anyhow::{Context, Result};
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use std::path::Path;

/// The mount point of the image. The running system expects it here.
const METADATA: &str = "/run/nixos-etc-metadata";
/// The directory of the upper layer.
const WRITABLE: &str = "/.rw-etc";

/// Shows that `/etc` of the new root is the `/etc` of the running system, so that later steps can write files to it.
pub struct InPlace(());

/// Mounts the overlay for `/etc`, if the system has one. `mounted`: by an earlier attempt, and after this call.
///
/// # Errors
///
/// A mount that the kernel refuses. It needs Linux 6.6 or newer.
pub fn mount(root: &NewRoot, config: &Config, etc: Etc, mounted: &mut Mounted) -> Result<InPlace> {
    if let (Some(overlay), Mounted::Store) = (&config.etc_overlay, *mounted) {
        mount_overlay(root, overlay, etc)?;
        *mounted = Mounted::StoreAndEtc;
    }
    Ok(InPlace(()))
}

fn mount_overlay(root: &NewRoot, overlay: &EtcOverlay, etc: Etc) -> Result<()> {
    // /proc/mounts keeps the paths as they are given here. Inside of the new root they are the paths of the running system.
    root.inside(|| mount_inside(overlay, etc)).with_context(|| match kernel_release() {
        Ok(release) if !kernel_has_etc_overlay(&release) => format!(
            "this system has an overlay for /etc, which needs Linux 6.6 or newer; this kernel is {release}: build the system with \
             a newer kernel, or with system.etc.overlay.enable = false"
        ),
        _ => "mounting the overlay for /etc".into(),
    })
}

fn mount_inside(overlay: &EtcOverlay, etc: Etc) -> Result<()> {
    let locked = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    // Unmount the image of a failed attempt.
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
    // An overlay cannot be the upper layer of another one.
    let writable = if Path::new(MEMORY).exists() { MEMORY } else { "" }.to_owned() + WRITABLE;
    let (upper, work) = (format!("{writable}/upper"), format!("{writable}/work"));
    let mut options = vec![("redirect_dir", "on"), ("metacopy", "on"), ("lowerdir", &layers)];
    let attributes = match etc {
        Etc::Mutable => {
            make_directory(&upper)?;
            make_directory(&work)?;
            options.extend([("upperdir", upper.as_str()), ("workdir", &work)]);
            locked
        }
        Etc::Immutable => locked | MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    Filesystem { attributes, ..Filesystem::overlay(&options) }.mount(Path::new("/etc"))
}
