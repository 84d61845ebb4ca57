//! Parsers for files of `/proc` and for `/dev/kmsg`.

use crate::{LogLine, Mount};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Reads `/proc/<pid>/mountinfo` (`man 5 proc_pid_mountinfo`).
///
/// # Errors
///
/// A line of another form.
pub fn mounts(mountinfo: &str) -> Result<Vec<Mount>> {
    let mount = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let mut file_system = file_system.splitn(3, ' ');
        Some(Mount {
            target: unescape(mount.next()?),
            options: mount.next()?.to_owned(),
            kind: file_system.next()?.to_owned(),
            source: unescape(file_system.next()?),
            super_options: unescape(file_system.next()?),
        })
    };
    mountinfo.lines().map(|line| mount(line).with_context(|| format!("not a line of mountinfo: {line}"))).collect()
}

/// Replaces `\040` and the other escapes that the kernel writes for white space and backslashes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, character)| text.replace(escape, character))
}

/// Reads the amounts in `/proc/meminfo`, kB. Lines with other units are left out.
#[must_use]
pub fn meminfo(text: &str) -> BTreeMap<String, u64> {
    let amount = |line: &str| {
        let (name, amount) = line.split_once(':')?;
        Some((name.to_owned(), amount.trim().strip_suffix(" kB")?.parse().ok()?))
    };
    text.lines().filter_map(amount).collect()
}

/// Reads a set of signals of `/proc/<pid>/status` (`SigIgn`, `SigBlk`): bit `n - 1` for signal `n`.
///
/// # Errors
///
/// No such line, or one without a hexadecimal number.
pub fn signals(status: &str, set: &str) -> Result<u64> {
    status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == set)
        .and_then(|(_, mask)| u64::from_str_radix(mask.trim(), 16).ok())
        .with_context(|| format!("/proc/<pid>/status has no {set}"))
}

/// Reads a list of strings that each end with a NUL: `/proc/<pid>/cmdline`, `/proc/<pid>/environ`.
#[must_use]
pub fn strings(bytes: &[u8]) -> Vec<String> {
    bytes.split_inclusive(|byte| *byte == 0).map(|string| String::from_utf8_lossy(string).replace('\0', "")).collect()
}

/// Reads a record of `/dev/kmsg`: `<priority>,<number>,<microseconds>,<flags>;<text>`, then lines that begin with a space.
///
/// # Errors
///
/// A record of another form.
pub fn log_line(record: &str) -> Result<LogLine> {
    let line = || {
        let (prefix, text) = record.lines().next()?.split_once(';')?;
        let mut fields = prefix.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let microseconds = fields.nth(1)?.parse().ok()?;
        // The lowest three bits are the level, the others the facility (man 3 syslog).
        Some(LogLine { microseconds, level: (priority % 8) as u8, text: text.to_owned() })
    };
    line().with_context(|| format!("not a record of /dev/kmsg: {record}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_with_and_without_optional_fields() {
        let text = "24 1 0:22 / / rw,relatime - tmpfs tmpfs rw,mode=755\n\
                    31 24 0:30 /sub /a\\040b ro,nosuid shared:1 master:2 - overlay overlay rw,lowerdir=/x\\134040\n";
        let mount = |target: &str, kind: &str, options: &str, super_options: &str| Mount {
            target: target.into(),
            kind: kind.into(),
            source: kind.into(),
            options: options.into(),
            super_options: super_options.into(),
        };
        assert_eq!(
            mounts(text).unwrap(),
            [
                mount("/", "tmpfs", "rw,relatime", "rw,mode=755"),
                mount("/a b", "overlay", "ro,nosuid", "rw,lowerdir=/x\\040")
            ]
        );
        assert!(mounts("24 1 0:22 / / rw,relatime tmpfs tmpfs rw\n").is_err());
    }

    #[test]
    fn amounts_of_memory() {
        let amounts = meminfo("MemTotal:        1016492 kB\nHugePages_Total:       0\nUnevictable:   12 kB\n");
        assert_eq!(amounts, BTreeMap::from([("MemTotal".into(), 1_016_492), ("Unevictable".into(), 12)]));
    }

    #[test]
    fn sets_of_signals() {
        let status = "Name:\tbash\nSigBlk:\t0000000000010000\nSigIgn:\t0000000000001004\n";
        assert_eq!(signals(status, "SigIgn").unwrap(), 0x1004);
        assert_eq!(signals(status, "SigBlk").unwrap(), 1 << 16);
        assert!(signals(status, "SigCgt").is_err());
    }

    #[test]
    fn strings_may_be_empty() {
        assert_eq!(strings(b""), Vec::<String>::new());
        assert_eq!(strings(b"init\0\0a b\0"), ["init", "", "a b"]);
    }

    #[test]
    fn log_lines() {
        let line = |microseconds, level, text: &str| LogLine { microseconds, level, text: text.into() };
        for (record, expected) in [
            ("6,1,0,-;Linux version 6.1\n", line(0, 6, "Linux version 6.1")),
            ("13,339,5140900,-;firn-init[1]: a; b\n", line(5_140_900, 5, "firn-init[1]: a; b")),
            ("6,2,7,c,caller=T1;x\n SUBSYSTEM=pci\n", line(7, 6, "x")),
        ] {
            assert_eq!(log_line(record).unwrap(), expected, "{record:?}");
        }
        for record in ["", "6,1;x", "a,1,0,-;x"] {
            assert!(log_line(record).is_err(), "{record:?}");
        }
    }
}
