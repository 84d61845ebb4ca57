//! How much memory there is, and how much a ramdisk takes.

use std::fs;

/// What a boot takes on top of the ramdisk and what it unpacks to, bytes: kernel, firn-init, the system's first programs.
/// Measured with 6.1 (docs/boot.md, "Memory").
const BASE: u64 = 80 << 20;

/// The same where the store images stay in the ramdisk. Measured with 7.3.
const BASE_RETAINED: u64 = 110 << 20;

/// What a new program could have of the memory (`MemAvailable` in `/proc/meminfo`), kB.
#[must_use]
pub fn available() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// About what a machine needs to boot a ramdisk with images of so many bytes: the ramdisk as the boot loader left it and what
/// the kernel unpacks from it are in memory at the same time. Images that stay where they are, are there once.
#[must_use]
pub fn needed(images: u64, retained: bool) -> u64 {
    if retained { images.saturating_add(BASE_RETAINED) } else { images.saturating_mul(2).saturating_add(BASE) }
}

/// A sentence for who wonders whether there is enough.
#[must_use]
pub fn sentence(needed: Option<u64>) -> String {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let [Some(total), Some(available)] = ["MemTotal:", "MemAvailable:"].map(|name| field(&meminfo, name)) else {
        return "/proc/meminfo cannot be read".into();
    };
    let needs = needed.map(|bytes| format!("; this ramdisk needs about {} MiB to boot", bytes >> 20));
    format!("{} of {} MiB are free{}", available >> 10, total >> 10, needs.unwrap_or_default())
}

fn field(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(sentence(Some(192 << 20)).ends_with("; this ramdisk needs about 192 MiB to boot"));
    }
}
