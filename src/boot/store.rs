//! The store: the image as lower layer, a tmpfs as upper layer, an overlay of both on `/nix/store`.

use super::mount::{Filesystem, make_directory};
use super::options::Limits;
use super::root::Root;
use super::sys;
use anyhow::{Context, Result};
use loopdev::{LoopControl, LoopDevice};
use rustix::mount::MountAttrFlags;
use std::fs::File;
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
    let device = attach(image)?;
    let source = device.path().context("asking /proc for the name of the loop device")?;
    let lower = Filesystem {
        kind: "squashfs",
        source: &source.to_string_lossy(),
        read_only: true,
        attributes: MountAttrFlags::empty(),
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
        read_only: false,
        attributes: MountAttrFlags::empty(),
        options: &[("lowerdir", LOWER), ("upperdir", UPPER), ("workdir", WORK)],
        wishes: &[],
    };
    // The layers' paths stay in /proc/mounts for ever: from inside they are those of the running system.
    root.inside(|| store.mount(Path::new("/nix/store")))?;
    Ok(NewRoot { root })
}

/// Puts a loop device over a file, read-only.
fn attach(path: &str) -> Result<LoopDevice> {
    let file = File::open(path).with_context(|| format!("opening the store image {path}"))?;
    let control = LoopControl::open().context(
        "opening /dev/loop-control: this kernel has no loop devices, neither built in nor as a module in the ramdisk",
    )?;
    let device = control.next_free().context("looking for a free loop device")?;
    log::info!("Attaching {path} to a loop device");
    match sys::loop_configure(&device, &file) {
        // before 5.8 there is no LOOP_CONFIGURE
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOTTY) => {
            device.with().read_only(true).autoclear(true).attach_fd(file).context("LOOP_SET_FD")
        }
        other => other.context("LOOP_CONFIGURE"),
    }
    .with_context(|| format!("attaching the store image {path} to a loop device"))?;
    Ok(device)
}
