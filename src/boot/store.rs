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
pub fn assemble(root: Root, image: &str, file_system: &str, limits: &Limits) -> Result<NewRoot> {
    mount_image(image, file_system, &root.at(LOWER)).with_context(|| format!("mounting the store image {image}"))?;
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

/// Mounts the image: an erofs as the file that it is where the kernel can do that, anything else by a loop device.
fn mount_image(image: &str, kind: &str, target: &Path) -> Result<()> {
    let lower = |source, wishes| {
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        Filesystem { kind, source, attributes, options: &[], wishes }.mount(target)
    };
    if kind == "erofs" {
        // 6.12 with EROFS_FS_BACKED_BY_FILE, and not from a tmpfs
        match lower(image, &[]) {
            Ok(()) => return Ok(()),
            Err(error) => log::info!("This kernel mounts no erofs from a file, trying a loop device ({error:#})"),
        }
    }
    let device = loop_device::attach(image)?;
    // 6.2 and SQUASHFS_CHOICE_DECOMP_BY_MOUNT: NixOS' kernels have it, Debian's do not
    let wishes: &[_] = if kind == "squashfs" { &[("threads", "multi")] } else { &[] };
    // The mount holds the device from here on, and the kernel gives it back after the last unmount (autoclear).
    lower(&device.path, wishes)
}
