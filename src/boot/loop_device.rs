//! Files as block devices.

use super::sys;
use anyhow::{Context, Result};
use loopdev::{LoopControl, LoopDevice};
use std::fs::File;

/// A loop device over a file. Once it is mounted the mount holds it; the kernel gives it back after its last user (autoclear).
pub struct Attached {
    /// Such as `/dev/loop0`.
    pub path: String,
    _device: LoopDevice,
}

/// Puts a free loop device over a file, read-only.
///
/// # Errors
///
/// A file that cannot be opened, a kernel without loop devices, or what the kernel refuses.
pub fn attach(path: &str) -> Result<Attached> {
    let file = File::open(path).with_context(|| format!("opening {path}"))?;
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
    .with_context(|| format!("attaching {path} to a loop device"))?;
    let path = device.path().context("asking /proc for the name of the loop device")?;
    Ok(Attached { path: path.to_string_lossy().into_owned(), _device: device })
}
