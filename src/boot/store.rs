//! The store: an overlay on `/nix/store`, with the store images as lower layers and a tmpfs as the upper layer.

use crate::boot::guard;
use crate::boot::images::Found;
use crate::boot::kernel::loop_device::Backing;
use crate::boot::kernel::mount::{Detached, Filesystem, make_directory};
use crate::boot::mounted::Mounted;
use crate::boot::parameters::limits::Limits;
use crate::boot::root::Root;
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
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

/// Mounts the store images, the writable layer with its limits, and the overlay. Nix cannot delete anything until the store is
/// registered. `mounted`: by an earlier attempt, and after this call.
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
        mounted.with_context(|| format!("mounting the store image {}", image.path))?;
    }
    root.inside(|| {
        Filesystem::tmpfs(&limits.options()).mount(Path::new(WRITABLE))?;
        make_directory(UPPER)?;
        make_directory(WORK)?;
        mount_overlay(images.len())?;
        guard::set();
        Ok(())
    })
}

/// Mounts the overlay, inside of the new root: `/proc/mounts` keeps the paths of the layers as they are given here, and they are the
/// paths of the running system.
fn mount_overlay(images: usize) -> Result<()> {
    if images == 1 {
        return mount_on_store(&[("lowerdir", LOWER)]);
    }
    // The uppermost layer comes first (Documentation/filesystems/overlayfs.rst).
    let layers: Vec<_> = layers(images).into_iter().rev().collect();
    let each: Vec<_> = layers.iter().map(|layer| ("lowerdir+", layer.as_str())).collect();
    match mount_on_store(&each) {
        Err(error) if error.downcast_ref() == Some(&Errno::INVAL) => {
            log::info!("This kernel does not take the layers one by one; mounting them with one option ({error:#})");
            mount_with_one_option(images)
        }
        other => other,
    }
}

/// Mounts the overlay as Linux before 6.8 takes it: with the paths of all layers in one option. They are relative, so that they fit.
fn mount_with_one_option(images: usize) -> Result<()> {
    rustix::process::chdir(LOWER).with_context(|| format!("changing the working directory to {LOWER}"))?;
    mount_on_store(&[("lowerdir", &relative(images))])
}

/// Mounts the overlay with these lower layers. Nix makes hard links to files of the images when it optimises the store: with `metacopy`,
/// the kernel copies the inode of such a file into the upper layer, and not its contents
/// (Documentation/filesystems/overlayfs.rst, "Metadata only copy up").
fn mount_on_store(lower: &[(&str, &str)]) -> Result<()> {
    let options = [lower, &[("upperdir", UPPER), ("workdir", WORK), ("metacopy", "on")]].concat();
    Filesystem::overlay(&options).mount(Path::new("/nix/store"))
}

/// The mount points of this number of images, the lowest layer first.
fn layers(images: usize) -> Vec<String> {
    if images == 1 { vec![LOWER.into()] } else { (0..images).map(|number| format!("{LOWER}/{number}")).collect() }
}

/// The overlay option `lowerdir` for this number of images, relative to [`LOWER`]. It begins with the uppermost layer.
fn relative(images: usize) -> String {
    (0..images).rev().map(|number| number.to_string()).collect::<Vec<_>>().join(":")
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
    use crate::boot::kernel::mount::LONGEST_VALUE;
    use crate::contract::plan::MAX_IMAGES;
    use crate::testing::{enter_initramfs, in_namespaces};
    use std::fs;

    #[test]
    fn a_1_the_kernel_mounts_all_layers_with_one_option() {
        in_namespaces(module_path!(), "a_1_the_kernel_mounts_all_layers_with_one_option", || {
            let work = tempfile::tempdir().unwrap();
            enter_initramfs(work.path(), &[]);
            make_directory(UPPER).unwrap();
            make_directory(WORK).unwrap();
            for layer in layers(MAX_IMAGES) {
                make_directory(format!("{layer}/in{}", layer.replace('/', "-"))).unwrap();
            }
            mount_with_one_option(MAX_IMAGES).unwrap();
            assert_eq!(fs::read_dir("/nix/store").unwrap().count(), MAX_IMAGES);
        });
    }

    #[test]
    fn a_1_the_relative_paths_of_all_layers_fit_into_a_mount_option() {
        assert_eq!(relative(3), "2:1:0");
        assert!(relative(MAX_IMAGES).len() <= LONGEST_VALUE);
    }
}
