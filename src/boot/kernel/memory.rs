//! The free memory of the machine, and the memory that a boot needs.

use crate::boot::kernel::command_line;
use crate::formats::cmdline::{self, CommandLine};
use std::fs;

/// The memory that a boot needs in addition to the ramdisk and its unpacked files, bytes: for the kernel, firn-init and the first
/// programs of the system. Measured with Linux 6.1 (docs/boot.md, "Memory").
const BASE: u64 = 80 << 20;

/// The same for retained store images, bytes. Measured with Linux 7.3.
const BASE_RETAINED: u64 = 110 << 20;

/// The memory of the machine (`/proc/meminfo`), bytes.
pub struct Memory {
    /// All of it that the kernel can use (`MemTotal`).
    pub total: u64,
    /// The part that a new program can use (`MemAvailable`).
    pub available: u64,
}

/// The memory at this moment. `None` if the kernel does not tell it.
#[must_use]
pub fn now() -> Option<Memory> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name| field(&meminfo, name)?.checked_mul(1 << 10);
    Some(Memory { total: bytes("MemTotal:")?, available: bytes("MemAvailable:")? })
}

/// The approximate memory that a boot needs, bytes, with store images of `images` bytes in total. The ramdisk and the files that the
/// kernel unpacks from it are in memory at the same time; retained images are in memory once.
#[must_use]
pub fn needed(images: u64, retained: bool) -> u64 {
    if retained { images.saturating_add(BASE_RETAINED) } else { images.saturating_mul(2).saturating_add(BASE) }
}

/// The free memory and, with `needed` (bytes), the memory that the boot needs: the end of a message.
#[must_use]
pub fn summary(needed: Option<u64>) -> String {
    let Some(Memory { total, available }) = now() else { return "/proc/meminfo cannot be read".into() };
    let needs = needed.map(|bytes| format!("; this ramdisk needs about {} MiB to boot", bytes >> 20));
    let limits = limits(&command_line::now());
    format!("{} of {} MiB of memory are free{limits}{}", available >> 20, total >> 20, needs.unwrap_or_default())
}

/// The words of the command line that take memory away from the kernel, in parentheses; empty without any.
fn limits(cmdline: &CommandLine) -> String {
    let words = cmdline.iter().filter(|(key, _)| matches!(*key, "mem" | "memmap" | "crashkernel"));
    let words: Vec<_> = words.map(|(key, value)| cmdline::parameter(key, value)).collect();
    if words.is_empty() { String::new() } else { format!(" (the kernel command line has {})", words.join(" ")) }
}

/// A field of `/proc/meminfo`, kB.
fn field(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_7_words_that_take_memory_away_are_named() {
        for (line, expected) in [
            ("quiet memtest=1 mem", " (the kernel command line has mem)"),
            ("mem=1G memmap=4M$16M", " (the kernel command line has mem=1G memmap=4M$16M)"),
            ("quiet", ""),
        ] {
            assert_eq!(limits(&CommandLine::parse(line.as_bytes())), expected, "{line}");
        }
    }

    #[test]
    fn fields_of_meminfo() {
        for (meminfo, expected) in [
            ("MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:     746252 kB\n", Some(746_252)),
            ("MemTotal:  100 kB\n", None),
            ("MemAvailable: many kB\n", None),
        ] {
            assert_eq!(field(meminfo, "MemAvailable:"), expected);
        }
    }

    #[test]
    fn what_a_ramdisk_needs() {
        assert_eq!(needed(56 << 20, false), 192 << 20);
        assert_eq!(needed(56 << 20, true), 166 << 20);
        assert_eq!(needed(u64::MAX, false), u64::MAX);
        assert!(summary(Some(192 << 20)).ends_with("; this ramdisk needs about 192 MiB to boot"));
    }
}
