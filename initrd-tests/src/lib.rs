//! The report of a booted system: `firn-probe` in the guest writes it, the tests read it.
//!
//! The report is one JSON object. It needs no length: an object that is cut off is not valid JSON.

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
    /// Loop devices in use, by name (`loop0`), and their files. The path of a deleted file ends with ` (deleted)`.
    pub loop_files: BTreeMap<String, String>,
    /// Some paths and their targets; `None` for a path that does not resolve.
    pub paths: BTreeMap<String, Option<String>>,
    /// Stage 1's record of the boot (`/run/firn/boot.json`).
    pub boot: serde_json::Value,
    /// The kernel log.
    pub dmesg: Vec<LogLine>,
    /// The commands that ran then, in this order.
    pub commands: Vec<Command>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program.
    pub exe: String,
    /// The arguments, with the name of the program first.
    pub argv: Vec<String>,
    /// The environment at its start.
    pub environ: Vec<String>,
    /// The signals it ignores: bit `n - 1` for signal `n`.
    pub signals_ignored: u64,
    /// The signals it blocks, in the same form.
    pub signals_blocked: u64,
    /// Its open files, by descriptor.
    pub files: BTreeMap<u32, String>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The path of the mount point.
    pub target: String,
    /// The type of its file system.
    pub kind: String,
    /// The source: a device, or any name.
    pub source: String,
    /// Options of the mount.
    pub options: String,
    /// Options of the file system, the same for all of its mounts.
    pub super_options: String,
}

/// A record of the kernel log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The time since the start of the kernel's clock, µs.
    pub microseconds: u64,
    /// The level, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// The message.
    pub text: String,
}

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its exit status; `None` if a signal ended it or it did not start.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error, or the reason why it did not start.
    pub stderr: String,
}
