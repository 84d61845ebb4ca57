//! The store: the images as lower layers, a tmpfs as upper layer, an overlay of all on `/nix/store`.

use crate::boot::image::find::Found;
use crate::boot::kernel::loop_device;
use crate::boot::kernel::mount::{Filesystem, make_directory};
use crate::boot::root::Root;
use crate::boot::words::options::Limits;
use anyhow::{Context, Result};
use rustix::mount::MountAttrFlags;
use std::path::Path;

/// The read-only lower layer; or the directory of several, each at its number.
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

/// Mounts the store images, the writable layer with its limits, and the overlay of all.
///
/// # Errors
///
/// A mount that the kernel refuses.
pub fn assemble(root: Root, images: &[Found], limits: &Limits) -> Result<NewRoot> {
    if images.len() > 1 {
        // A mount as with one image: the system's fstab has one there, which its systemd would try to make otherwise.
        Filesystem::tmpfs(&[("mode", "0755"), ("size", "64k")]).mount(&root.at(LOWER))?;
    }
    let mut layers = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let place = if images.len() == 1 { LOWER.to_owned() } else { format!("{LOWER}/{number}") };
        mount_image(image, &root.at(&place)).with_context(|| format!("mounting the store image {}", image.path))?;
        layers.insert(0, place); // the overlay wants the uppermost first
    }
    Filesystem::tmpfs(&limits.options()).mount(&root.at(WRITABLE))?;
    make_directory(root.at(UPPER))?;
    make_directory(root.at(WORK))?;

    let store = Filesystem {
        kind: "overlay",
        source: "overlay",
        attributes: MountAttrFlags::empty(),
        options: &[("lowerdir", &layers.join(":")), ("upperdir", UPPER), ("workdir", WORK)],
        wishes: &[],
    };
    // The layers' paths stay in /proc/mounts for ever: from inside they are those of the running system.
    root.inside(|| store.mount(Path::new("/nix/store")))?;
    Ok(NewRoot { root })
}

/// Mounts an image: an erofs as the file that it is where the kernel can do that, anything else by a loop device.
fn mount_image(image: &Found, target: &Path) -> Result<()> {
    let kind = image.file_system;
    let lower = |source, wishes| {
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        Filesystem { kind, source, attributes, options: &[], wishes }.mount(target)
    };
    if kind == "erofs" && image.source.part.is_none() {
        // 6.12 with EROFS_FS_BACKED_BY_FILE, and not from a tmpfs
        match lower(&image.source.path, &[]) {
            Ok(()) => return Ok(()),
            Err(error) => log::info!("This kernel mounts no erofs from a file, trying a loop device ({error:#})"),
        }
    }
    let device = loop_device::attach(&image.source)?;
    // 6.2 and SQUASHFS_CHOICE_DECOMP_BY_MOUNT: NixOS' kernels have it, Debian's do not
    let wishes: &[_] = if kind == "squashfs" { &[("threads", "multi")] } else { &[] };
    // The mount holds the device from here on, and the kernel gives it back after the last unmount (autoclear).
    lower(&device.path, wishes)
}
