//! What the systemd of an initramfs leaves to the systemd that it executes: here, when the initramfs began, by which
//! `systemd-analyze` shows how long it took.

use crate::boot::kernel::clock::microseconds;
use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::time::ClockId;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;

/// The state of an initramfs that began at `began`, µs of `CLOCK_MONOTONIC`: an open file that execve(2) leaves open.
///
/// # Errors
///
/// A file in memory that cannot be made.
pub fn state(began: u64) -> Result<File> {
    let mut file = File::from(memfd_create("systemd-state", MemfdFlags::empty()).context("memfd_create")?);
    let [now, realtime] = [ClockId::Monotonic, ClockId::Realtime].map(microseconds);
    file.write_all(serialized(began, now, realtime).as_bytes()).and_then(|()| file.rewind()).context("writing it")?;
    Ok(file)
}

/// The arguments that systemd gives to itself when it switches root (`do_reexecute`, src/core/main.c).
pub fn arguments(state: &File) -> [String; 3] {
    ["--switched-root".into(), "--system".into(), format!("--deserialize={}", state.as_raw_fd())]
}

/// The text that systemd reads (`manager_deserialize`, src/core/manager-serialize.c, version 252): lines of `name=value`, of
/// which it passes over those that it does not know, an empty line, and units, of which there are none.
fn serialized(began: u64, now: u64, realtime: u64) -> String {
    let then = realtime.saturating_sub(now.saturating_sub(began));
    format!("initrd-timestamp={then} {began}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn both_clocks_tell_the_same_moment() {
        assert_eq!(serialized(700, 1_000, 5_000_000), "initrd-timestamp=4999700 700\n\n");
    }

    #[test]
    fn the_file_is_read_from_its_start() {
        let mut file = state(1).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("initrd-timestamp=") && text.ends_with(" 1\n\n"), "{text:?}");
    }
}
