//! Loop devices: files as block devices.

use crate::boot::kernel::{file, left_out, sys};
use anyhow::{Context, Result};
use loopdev::LoopControl;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

/// The open file, part of a file, or device that holds a file system.
pub enum Backing {
    /// A whole regular file.
    File {
        /// The file.
        file: File,
        /// Its path.
        path: String,
    },
    /// A part of a regular file.
    Part {
        /// The file.
        file: File,
        /// Its path.
        path: String,
        /// The start of the part, bytes.
        offset: u64,
        /// The size of the part, bytes.
        bytes: u64,
    },
    /// A block device, which is mounted without a loop device.
    Device {
        /// The device.
        file: File,
        /// Its path.
        path: String,
    },
}

impl Backing {
    /// Opens a whole regular file.
    ///
    /// # Errors
    ///
    /// An error of open(2), with the path.
    pub fn open(path: &str) -> Result<Self> {
        let file = file::open(path).with_context(|| format!("opening {path}"))?;
        Ok(Self::File { file, path: path.into() })
    }

    /// The path of the file or device.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::File { path, .. } | Self::Part { path, .. } | Self::Device { path, .. } => path,
        }
    }

    /// A reader of all bytes, from the first one.
    ///
    /// # Errors
    ///
    /// An error of lseek(2).
    pub fn read(&self) -> io::Result<impl Read> {
        let (mut file, offset, bytes) = match self {
            Self::File { file, .. } | Self::Device { file, .. } => (file, 0, u64::MAX),
            Self::Part { file, offset, bytes, .. } => (file, *offset, *bytes),
        };
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(bytes))
    }

    /// The block device to mount: the device itself, or a loop device over the file.
    ///
    /// # Errors
    ///
    /// The kernel has no loop devices, or refuses this one.
    pub fn attach(&self) -> Result<Attached> {
        match self {
            Self::Device { path, .. } => Ok(Attached { path: path.clone(), _device: None }),
            // The size 0 means the rest of the file (`man 4 loop`).
            Self::File { file, path } => attach(file, path, 0, 0),
            Self::Part { file, path, offset, bytes } => attach(file, path, *offset, *bytes),
        }
    }
}

/// A block device with a file system. A mount keeps a loop device in use; the kernel frees it after the last unmount (autoclear).
pub struct Attached {
    /// Its path, such as `/dev/loop0`.
    pub path: String,
    _device: Option<File>,
}

/// How many times a free loop device is looked for again, when another process took it first.
const TRIES: u32 = 16;

/// Attaches a free loop device, read-only, to `size` bytes of a file from `offset` on.
fn attach(file: &File, path: &str, offset: u64, size: u64) -> Result<Attached> {
    let control = LoopControl::open()
        .with_context(|| format!("opening /dev/loop-control: {}", left_out::reason("loop devices", "loop")))?;
    log::info!("Attaching {path} to a loop device");
    let mut tries = TRIES;
    let (device, configured) = loop {
        let device = control.next_free().context("looking for a free loop device")?;
        match sys::loop_configure(&device, file, offset, size) {
            // Another process took it first.
            Err(Errno::BUSY) if tries > 0 => tries -= 1,
            other => break (device, other),
        }
    };
    match configured {
        // Linux before 5.8 has no LOOP_CONFIGURE.
        Err(Errno::INVAL | Errno::NOTTY) => {
            let options = device.with().read_only(true).autoclear(true).offset(offset).size_limit(size);
            options.attach_fd(file.as_raw_fd()).context("ioctl LOOP_SET_FD")
        }
        other => other.context("ioctl LOOP_CONFIGURE"),
    }
    .with_context(|| format!("attaching {path} to a loop device"))?;
    let path = device.path().context("reading the path of the loop device in /proc")?;
    // `device` is open for writing. A kernel without BLK_DEV_WRITE_MOUNTED (Linux 6.8), or with bdev_allow_write_mounted=0, mounts no such
    // device.
    let reader = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    Ok(Attached { path: path.to_string_lossy().into_owned(), _device: Some(reader) })
}
