//! The store: the image as lower layer, a tmpfs as upper layer, an overlay of both on `/nix/store`.

use super::mount::{Filesystem, make_directory};
use super::options::Limits;
use super::plan::Image;
use super::root::Root;
use super::sys;
use anyhow::{Context, Result, bail};
use loopdev::{LoopControl, LoopDevice};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::linux::fs::MetadataExt;
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
/// An image that is missing or not whole, or a mount that the kernel refuses.
pub fn assemble(root: Root, image: &Image, limits: &Limits) -> Result<NewRoot> {
    check_whole(image)?;
    let device = attach(&image.path)?;
    let source = device.path().context("asking /proc for the name of the loop device")?;
    let lower = Filesystem {
        kind: "squashfs",
        source: &source.to_string_lossy(),
        read_only: true,
        options: &[],
        // 6.2 and SQUASHFS_CHOICE_DECOMP_BY_MOUNT: NixOS' kernels have it, Debian's do not
        wishes: &[("threads", "multi")],
    };
    lower.mount(&root.at(LOWER)).with_context(|| format!("mounting the store image {}", image.path))?;
    // The mount holds the device from here on, and the kernel gives it back after the last unmount (autoclear).
    drop(device);

    Filesystem::tmpfs(&limits.options()).mount(&root.at(WRITABLE))?;
    make_directory(root.at(UPPER))?;
    make_directory(root.at(WORK))?;

    let store = Filesystem {
        kind: "overlay",
        source: "overlay",
        read_only: false,
        options: &[("lowerdir", LOWER), ("upperdir", UPPER), ("workdir", WORK)],
        wishes: &[],
    };
    // The layers' paths stay in /proc/mounts for ever: from inside they are those of the running system.
    root.inside(|| store.mount(Path::new("/nix/store")))?;
    Ok(NewRoot { root })
}

/// Makes sure that the image arrived whole. A ramdisk that is cut short or does not fit into the memory is only a line in the
/// kernel log; the boot goes on with a file that is missing, or that has its full length from the start (`do_name`,
/// init/initramfs.c) and a hole where its data ought to be. A hole has no blocks.
fn check_whole(image: &Image) -> Result<()> {
    let path = &image.path;
    let advice = "the boot loader handed over a part of the ramdisk, or the kernel could not unpack all of it (look for \
                  \"Initramfs unpacking failed\" in its log): check the initrd that the machine loads, or give it more memory";
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let advice =
                if image.bytes.is_some() { advice } else { "put it there, or name another path with firn.store=" };
            return Err(error).with_context(|| format!("there is no store image {path} in the ramdisk: {advice}"));
        }
        other => other.with_context(|| format!("looking at the store image {path}"))?,
    };
    let expected = image.bytes.unwrap_or(metadata.len());
    let arrived = metadata.len().min(metadata.st_blocks() * 512);
    if arrived < expected {
        bail!("the store image {path} is not whole, {arrived} of {expected} bytes are there: {advice}");
    }
    if metadata.len() != expected {
        bail!(
            "the store image {path} has {} bytes and the plan is for one of {expected}: they are of different builds; take \
             both from the same",
            metadata.len()
        );
    }
    Ok(())
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
