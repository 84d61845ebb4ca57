//! Files as block devices.

use crate::boot::kernel::sys;
use anyhow::{Context, Result};
use loopdev::{LoopControl, LoopDevice};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

/// A file, or a part of one, that is to be a block device.
pub struct Source {
    /// The file, open.
    pub file: File,
    /// Its path.
    pub path: String,
    /// Where the part begins and its size, bytes; none for the whole file.
    pub part: Option<(u64, u64)>,
}

impl Source {
    /// Opens a file, all of which is meant.
    ///
    /// # Errors
    ///
    /// Those of open(2), with the path.
    pub fn open(path: &str) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {path}"))?;
        Ok(Self { file, path: path.into(), part: None })
    }

    /// What is in it, from the first byte to the last.
    ///
    /// # Errors
    ///
    /// Those of lseek(2).
    pub fn read(&self) -> io::Result<impl Read> {
        let (offset, bytes) = self.part.unwrap_or((0, u64::MAX));
        (&self.file).seek(SeekFrom::Start(offset))?;
        Ok((&self.file).take(bytes))
    }
}

/// A loop device over a file. Once it is mounted the mount holds it; the kernel gives it back after its last user (autoclear).
pub struct Attached {
    /// Such as `/dev/loop0`.
    pub path: String,
    _device: LoopDevice,
}

/// Puts a free loop device over a file or a part of it, read-only.
///
/// # Errors
///
/// A kernel without loop devices, or what the kernel refuses.
pub fn attach(source: &Source) -> Result<Attached> {
    let Source { file, path, part } = source;
    let (offset, size) = part.unwrap_or_default();
    let control = LoopControl::open().context(
        "opening /dev/loop-control: this kernel has no loop devices, neither built in nor as a module in the ramdisk",
    )?;
    let device = control.next_free().context("looking for a free loop device")?;
    log::info!("Attaching {path} to a loop device");
    match sys::loop_configure(&device, file, offset, size) {
        // before 5.8 there is no LOOP_CONFIGURE
        Err(Errno::INVAL | Errno::NOTTY) => {
            let options = device.with().read_only(true).autoclear(true).offset(offset).size_limit(size);
            options.attach_fd(file.as_raw_fd()).context("LOOP_SET_FD")
        }
        other => other.context("LOOP_CONFIGURE"),
    }
    .with_context(|| format!("attaching {path} to a loop device"))?;
    let path = device.path().context("asking /proc for the name of the loop device")?;
    Ok(Attached { path: path.to_string_lossy().into_owned(), _device: device })
}
