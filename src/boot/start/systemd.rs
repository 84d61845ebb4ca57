//! The state that a systemd in an initramfs passes to the systemd of the system. Stage 1 passes only the time when the initramfs began;
//! `systemd-analyze` shows the duration of the initramfs from it.

use crate::boot::kernel::clock::{ClockId, microseconds};
use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;

/// The state of an initramfs that began at `began`, µs of `CLOCK_MONOTONIC`: a file in memory that stays open across execve(2).
///
/// # Errors
///
/// The file cannot be made or written.
pub fn state(began: u64) -> Result<File> {
    let mut file = File::from(memfd_create("systemd-state", MemfdFlags::empty()).context("memfd_create(2)")?);
    let [now, realtime] = [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_REALTIME].map(microseconds);
    file.write_all(serialized(began, now, realtime).as_bytes())
        .and_then(|()| file.rewind())
        .context("writing the file in memory")?;
    Ok(file)
}

/// The arguments that systemd passes to the next systemd when it switches root (`do_reexecute`, src/core/main.c).
pub fn arguments(state: &File) -> [String; 3] {
    ["--switched-root".into(), "--system".into(), format!("--deserialize={}", state.as_raw_fd())]
}

/// The text that systemd reads (`manager_deserialize`, src/core/manager-serialize.c, version 252): lines `name=value`, an empty line, and
/// the units. This text has no units. systemd ignores unknown names. `now` and `realtime` are the current times of
/// `CLOCK_MONOTONIC` and `CLOCK_REALTIME`, µs.
fn serialized(began: u64, now: u64, realtime: u64) -> String {
    let began_realtime = realtime.saturating_sub(now.saturating_sub(began));
    format!("initrd-timestamp={began_realtime} {began}\n\n")
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

    #[test]
    fn systemd_can_read_the_state() {
        let state = state(7).unwrap();
        let read = "cat <&${2#--deserialize=}";
        let output = std::process::Command::new("sh").args(["-c", read]).args(arguments(&state)).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("initrd-timestamp=") && text.ends_with(" 7\n\n"), "{text:?}");
    }
}
