//! The store: an overlay on `/nix/store`, with the store images as lower layers and a tmpfs as the upper layer.

use crate::boot::images::Found;
use crate::boot::kernel::loop_device::Backing;
use crate::boot::kernel::mount::{Detached, Filesystem, make_directory};
use crate::boot::mounted::Mounted;
use crate::boot::parameters::options::Limits;
use crate::boot::root::Root;
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::mount::MountAttrFlags;
use std::path::Path;

/// The mount point of the store image. Several images are mounted on subdirectories, named by their numbers.
const LOWER: &str = "/nix/.ro-store";
/// The mount point of the tmpfs with the upper layer.
const WRITABLE: &str = "/nix/.rw-store";
const UPPER: &str = "/nix/.rw-store/store";
const WORK: &str = "/nix/.rw-store/work";

/// The new root with its store.
pub struct NewRoot(Root);

impl NewRoot {
    /// Runs `run` with the new root as `/`: [`Root::inside`].
    ///
    /// # Errors
    ///
    /// As for [`Root::inside`].
    pub fn inside<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.0.inside(run)
    }

    /// The open directory.
    #[must_use]
    pub fn directory(&self) -> &OwnedFd {
        self.0.directory()
    }
}

/// Mounts the store images, the writable layer with its limits, and the overlay. `mounted`: by an earlier
/// attempt, and after this call.
///
/// # Errors
///
/// A mount that the kernel refuses.
pub fn assemble(root: Root, images: &[Found], limits: &Limits, mounted: &mut Mounted) -> Result<NewRoot> {
    if *mounted == Mounted::Nothing {
        mount(&root, images, limits)?;
        *mounted = Mounted::Store;
    }
    Ok(NewRoot(root))
}

fn mount(root: &Root, images: &[Found], limits: &Limits) -> Result<()> {
    // The system's fstab has a mount on this directory. If stage 1 made none, systemd would mount over the images.
    if images.len() > 1 {
        root.inside(|| Filesystem::tmpfs(&[("mode", "0755"), ("size", "64k")]).mount(Path::new(LOWER)))?;
    }
    for (image, target) in images.iter().zip(layers(images.len())) {
        let target = Path::new(&target);
        let mounted = mount_image(image, target).and_then(|mount| root.inside(|| mount.attach(target)));
        mounted.with_context(|| format!("mounting the store image {}", image.place))?;
    }
    root.inside(|| {
        Filesystem::tmpfs(&limits.options()).mount(Path::new(WRITABLE))?;
        make_directory(UPPER)?;
        make_directory(WORK)?;
        let store = Filesystem {
            kind: "overlay",
            source: "overlay",
            attributes: MountAttrFlags::empty(),
            options: &[("lowerdir", &lowerdir(images.len())), ("upperdir", UPPER), ("workdir", WORK)],
            optional: &[],
        };
        // /proc/mounts keeps the paths of the layers as they are given here. Inside of the new root they are the paths of the running
        // system.
        store.mount(Path::new("/nix/store"))
    })
}

/// The mount points of this number of images, the lowest layer first.
fn layers(images: usize) -> Vec<String> {
    if images == 1 { vec![LOWER.into()] } else { (0..images).map(|number| format!("{LOWER}/{number}")).collect() }
}

/// The overlay option `lowerdir`. It begins with the uppermost layer (Documentation/filesystems/overlayfs.rst).
fn lowerdir(images: usize) -> String {
    let mut layers = layers(images);
    layers.reverse();
    layers.join(":")
}

/// Mounts an image, attached to no directory yet. An erofs is mounted directly from its file if the kernel can do so. Any other image
/// needs a block device.
fn mount_image(image: &Found, target: &Path) -> Result<Detached> {
    let kind = image.file_system;
    let lower = |source, optional| {
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        Filesystem { kind, source, attributes, options: &[], optional }.detached(target)
    };
    if let (Backing::File { path, .. }, "erofs") = (&image.backing, kind) {
        // Linux 6.12 with EROFS_FS_BACKED_BY_FILE can do so, but not from a tmpfs.
        match lower(path, &[]) {
            Ok(mount) => return Ok(mount),
            Err(error) => {
                log::info!("This kernel cannot mount an erofs from a file; using a loop device ({error:#})");
            }
        }
    }
    let device = image.backing.attach()?;
    // Needs Linux 6.2 with SQUASHFS_CHOICE_DECOMP_BY_MOUNT. NixOS' kernels have it, Debian's do not.
    let optional: &[_] = if kind == "squashfs" { &[("threads", "multi")] } else { &[] };
    // The mount keeps the loop device in use. The kernel frees it after the last unmount (autoclear).
    lower(&device.path, optional)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_layer_is_the_first_of_the_overlay() {
        assert_eq!(lowerdir(1), "/nix/.ro-store");
        assert_eq!(lowerdir(3), "/nix/.ro-store/2:/nix/.ro-store/1:/nix/.ro-store/0");
    }
}
