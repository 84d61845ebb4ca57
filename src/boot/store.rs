//! The store: the image as lower layer, a tmpfs as upper layer, an overlay of both on `/nix/store`.

use super::loop_device;
use super::mount::{Filesystem, make_directory};
use super::options::Limits;
use super::root::Root;
use anyhow::{Context, Result};
use rustix::mount::MountAttrFlags;
use std::path::Path;

/// The read-only lower layer.
const LOWER: &str = "/nix/.ro-store";
/// The tmpfs of the upper layer.
const WRITABLE: &str = "/nix/.rw-store";
const UPPER: &str = "/nix/.rw-store/store";
const WORK: &str = "/nix/.rw-store/work";

/// The root with its store.
pub struct NewRoot {
    root: Root,
}

impl std::ops::Deref for NewRoot {
    type Target = Root;

    fn deref(&self) -> &Root {
        &self.root
    }
}

/// Mounts the store image, the writable layer with its limits, and the overlay of both.
///
/// # Errors
///
/// A mount that the kernel refuses.
pub fn assemble(root: Root, image: &str, limits: &Limits) -> Result<NewRoot> {
    let device = loop_device::attach(image).with_context(|| format!("the store image {image}"))?;
    let lower = Filesystem {
        kind: "squashfs",
        source: &device.path,
        attributes: MountAttrFlags::MOUNT_ATTR_RDONLY,
        options: &[],
        // 6.2 and SQUASHFS_CHOICE_DECOMP_BY_MOUNT: NixOS' kernels have it, Debian's do not
        wishes: &[("threads", "multi")],
    };
    lower.mount(&root.at(LOWER)).with_context(|| format!("mounting the store image {image}"))?;
    // The mount holds the device from here on, and the kernel gives it back after the last unmount (autoclear).
    drop(device);

    Filesystem::tmpfs(&limits.options()).mount(&root.at(WRITABLE))?;
    make_directory(root.at(UPPER))?;
    make_directory(root.at(WORK))?;

    let store = Filesystem {
        kind: "overlay",
        source: "overlay",
        attributes: MountAttrFlags::empty(),
        options: &[("lowerdir", LOWER), ("upperdir", UPPER), ("workdir", WORK)],
        wishes: &[],
    };
    // The layers' paths stay in /proc/mounts for ever: from inside they are those of the running system.
    root.inside(|| store.mount(Path::new("/nix/store")))?;
    Ok(NewRoot { root })
}
