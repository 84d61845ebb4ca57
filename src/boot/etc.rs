//! The overlay for `/etc` (NixOS' `system.etc.overlay.enable`): an image with all names, modes and owners, over a directory with the
//! contents.
//!
//! The mounts and their options are those of the units `run-nixos-etc\x2dmetadata.mount`, `rw-etc.service` and `sysroot-etc.mount` in
//! NixOS' own ramdisk (nixpkgs, `nixos/modules/system/etc/etc-activation.nix`).

use crate::boot::disk::space::{DISK, MEMORY};
use crate::boot::kernel::loop_device::Backing;
use crate::boot::kernel::mount::{Filesystem, make_directory};
use crate::boot::kernel::overlay;
use crate::boot::kernel::release::kernel_release;
use crate::boot::mounted::Mounted;
use crate::boot::parameters::options::Etc;
use crate::boot::root::open_directory;
use crate::boot::store::NewRoot;
use crate::contract::nixos_init::{Config, EtcOverlay};
use crate::contract::release::at_least;
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{FsWord, statfs};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use std::ffi::CString;
use std::path::Path;

/// The mount point of the image. The running system expects it here.
const METADATA: &str = "/run/nixos-etc-metadata";
/// The upper layer, and the directory in which overlayfs works.
const UPPER: &str = "/.rw-etc/upper";
const WORK: &str = "/.rw-etc/work";
/// The mount point of the layer that hides files of the lowest layer, on kernels that do not hide them.
const HIDDEN: &str = "/run/firn/etc";

/// Attributes of both mounts.
const LOCKED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV.union(MountAttrFlags::MOUNT_ATTR_NOSUID);

/// The kernel that has data-only layers (`lowerdir=metadata::contents`), which show no names.
const DATA_ONLY_LAYERS: (u32, u32) = (6, 5);

/// The type of overlayfs in statfs(2) (`OVERLAYFS_SUPER_MAGIC`, include/uapi/linux/magic.h).
const OVERLAYFS: FsWord = 0x794c_7630;

/// Shows that `/etc` of the new root is the `/etc` of the running system, so that later steps can write files to it.
pub struct InPlace(());

/// Mounts the overlay for `/etc`, if the system has one. `mounted`: by an earlier attempt, and after this call.
///
/// # Errors
///
/// A mount that the kernel refuses, or an image that it cannot read.
pub fn mount(root: &NewRoot, config: &Config, etc: Etc, mounted: &mut Mounted) -> Result<InPlace> {
    if let (Some(overlay), Mounted::Store) = (&config.etc_overlay, *mounted) {
        // /proc/mounts keeps the paths as they are given here. Inside of the new root they are the paths of the running system.
        root.inside(|| mount_inside(overlay, etc)).context("mounting the overlay for /etc")?;
        *mounted = Mounted::StoreAndEtc;
    }
    if config.etc_overlay.is_none() && etc == Etc::Immutable {
        log::warn!("firn.etc=immutable has no effect: this system has no overlay for /etc (system.etc.overlay.enable)");
    }
    Ok(InPlace(()))
}

fn mount_inside(overlay: &EtcOverlay, etc: Etc) -> Result<()> {
    // Unmount those of a failed attempt.
    for target in [METADATA, HIDDEN] {
        while unmount(target, UnmountFlags::DETACH).is_ok() {}
    }
    let device = Backing::open(&overlay.metadata_image)?.attach()?;
    let metadata = Filesystem {
        kind: "erofs",
        source: &device.path,
        attributes: LOCKED | MountAttrFlags::MOUNT_ATTR_RDONLY,
        options: &[],
        optional: &[],
    };
    metadata.mount(Path::new(METADATA))?;
    let image = open_directory(METADATA)?;

    let above = match etc {
        Etc::Mutable => Some(layers_above(&image)?),
        Etc::Immutable => None,
    };
    let basedir = &overlay.basedir;
    // A kernel that lacks them would log an error.
    if kernel_release().is_ok_and(|release| at_least(&release, DATA_ONLY_LAYERS) != Some(false)) {
        match mount_overlay(above.as_ref(), &format!("{METADATA}::{basedir}")) {
            Err(error) if error.downcast_ref() == Some(&Errno::INVAL) => {
                log::info!("This kernel does not take data-only layers ({error:#})");
            }
            other => return other,
        }
    }
    log::info!("Mounting {basedir} as an ordinary layer of /etc");
    let hidden = if hides_names(&image, basedir)? { HIDDEN.to_owned() + ":" } else { String::new() };
    mount_overlay(above.as_ref(), &format!("{hidden}{METADATA}:{basedir}"))
}

/// An ordinary layer shows its names. NixOS has all of them in the image, too, which comes first. Any other name is hidden by a layer on
/// [`HIDDEN`]. Returns whether there is one.
fn hides_names(image: &OwnedFd, basedir: &str) -> Result<bool> {
    Filesystem::tmpfs(&[]).mount(Path::new(HIDDEN))?;
    let hides = overlay::hide(&open_directory(basedir)?, image, &CString::new(HIDDEN)?);
    let hides = hides.map_err(|error| match error.downcast_ref() {
        Some(&Errno::OPNOTSUPP) => error.context(
            "this kernel cannot read the image of /etc; those of NixOS need Linux 5.15 or newer: build the system with a newer \
             kernel, or with system.etc.overlay.enable = false",
        ),
        _ => error,
    })?;
    if !hides {
        unmount(HIDDEN, UnmountFlags::DETACH).with_context(|| format!("unmounting {HIDDEN}"))?;
    }
    Ok(hides)
}

/// The layers above those of the system.
struct Above {
    /// A layer that is only read, with `:` at its end.
    kept: String,
    upper: String,
    work: String,
}

/// Makes the directories of the upper layer, or takes those of an earlier boot.
fn layers_above(image: &OwnedFd) -> Result<Above> {
    make_directory("/etc")?;
    // If the disk takes no changes, /etc is an overlay with changes in memory. It cannot be the upper layer of another one.
    let in_memory = statfs("/etc").is_ok_and(|status| status.f_type == OVERLAYFS);
    let of_disk = if in_memory { DISK } else { "" }.to_owned() + UPPER;
    let earlier = open_directory(&of_disk);
    if let Ok(earlier) = &earlier {
        overlay::clear_opaque(image, earlier, &CString::new(of_disk.as_str())?);
    }
    let kept = if in_memory && earlier.is_ok() { of_disk + ":" } else { String::new() };
    let place = if in_memory { MEMORY } else { "" };
    let above = Above { kept, upper: format!("{place}{UPPER}"), work: format!("{place}{WORK}") };
    make_directory(&above.upper)?;
    make_directory(&above.work)?;
    Ok(above)
}

fn mount_overlay(above: Option<&Above>, system: &str) -> Result<()> {
    let lower = above.map(|above| above.kept.as_str()).unwrap_or_default().to_owned() + system;
    let mut options = vec![("redirect_dir", "on"), ("metacopy", "on"), ("lowerdir", &lower)];
    let mut attributes = LOCKED;
    match above {
        Some(Above { upper, work, .. }) => options.extend([("upperdir", upper.as_str()), ("workdir", work)]),
        None => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
    }
    Filesystem { attributes, ..Filesystem::overlay(&options) }.mount(Path::new("/etc"))
}
