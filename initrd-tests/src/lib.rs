//! What a booted system says of itself: written by `firn-probe` in the guest, read by the tests.
//!
//! The report is one JSON object. It carries no length: an object that is cut off anywhere is no JSON.

pub mod proc;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The state of a system after its stage 2 has activated it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Process 1: the system's init.
    pub pid1: Process,
    /// All mounts that process 1 sees, in the order of `/proc/1/mountinfo`.
    pub mounts: Vec<Mount>,
    /// The kernel command line.
    pub cmdline: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// The kernel's limit on log lines from processes (`/proc/sys/kernel/printk_devkmsg`).
    pub log_limit: String,
    /// `/proc/meminfo`, kB.
    pub meminfo: BTreeMap<String, u64>,
    /// Loop devices in use, by name (`loop0`), and the files they show. ` (deleted)` is at the end of one that has no name.
    pub loop_files: BTreeMap<String, String>,
    /// What some paths resolve to; none for a path that does not.
    pub paths: BTreeMap<String, Option<String>>,
    /// What stage 1 says of the boot (`/run/firn/boot.json`).
    pub boot: serde_json::Value,
    /// The kernel log.
    pub dmesg: Vec<LogLine>,
    /// What was run then, in this order.
    pub commands: Vec<Command>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program.
    pub exe: String,
    /// The arguments, with the name it was called by.
    pub argv: Vec<String>,
    /// The environment it was started with.
    pub environ: Vec<String>,
    /// The signals it ignores: bit `n - 1` for signal `n`.
    pub signals_ignored: u64,
    /// The signals it blocks, likewise.
    pub signals_blocked: u64,
    /// Its open files, by descriptor.
    pub files: BTreeMap<u32, String>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is.
    pub target: String,
    /// The type of its file system.
    pub kind: String,
    /// What is mounted: a device, or any name.
    pub source: String,
    /// Options of the mount.
    pub options: String,
    /// Options of the file system, which it shares with its other mounts.
    pub super_options: String,
}

/// A record of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Since the kernel's clock began, µs.
    pub microseconds: u64,
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// The message.
    pub text: String,
}

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its exit status; none if a signal ended it or it did not start.
    pub status: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error, or why it did not start.
    pub stderr: String,
}
