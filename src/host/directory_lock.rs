//! The lock of an output directory: flock(2) on the directory itself, so that no lock file lies between the files.
//!
//! A process holds it only while it begins or publishes an output, or finishes the publication of one that was killed.

use crate::host::interrupt;
use crate::host::progress::tell;
use anyhow::{Context, Result};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From this time on a sentence says what the process waits for.
const PATIENCE: Duration = Duration::from_secs(3);

/// A directory that is locked until this is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    /// The directory, as the caller named it.
    pub path: PathBuf,
    /// The same directory, whatever happens to the path.
    pub directory: File,
}

impl DirectoryLock {
    /// Locks a directory. Waits while another process has the lock.
    ///
    /// # Errors
    ///
    /// A directory that cannot be opened, a file system without locks, and a signal that interrupts this process.
    pub fn take(path: &Path) -> Result<Self> {
        let directory = File::open(path).with_context(|| format!("opening the directory {}", path.display()))?;
        let start = Instant::now();
        let mut told = false;
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(Self { path: path.into(), directory }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| {
                        format!(
                            "locking the directory {}; give a directory on a file system with flock(2)",
                            path.display()
                        )
                    });
                }
            }
            if start.elapsed() > PATIENCE && !told {
                tell(&format!("Waiting for another program that has locked the directory {}", path.display()));
                told = true;
            }
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
