//! Whether KVM is used.

use crate::accel::Accel;
use crate::capture::capture;
use crate::machine::Machine;
use anyhow::{Result, bail};
use clap::ValueEnum;
use std::env;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// The environment variable that decides instead of a test: `kvm` or `tcg`.
const OVERRIDE: &str = "FIRN_QEMU_ACCEL";

/// When KVM is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kvm {
    /// Use KVM if it is available, and emulation if QEMU fails with it
    Auto,
    /// Use KVM; fail without it
    On,
    /// Use emulation
    Off,
}

impl Kvm {
    /// [`Kvm::On`] or [`Kvm::Off`], decided by a test boot of `kernel` (at most 10 s, once in the whole process) unless the
    /// environment variable `FIRN_QEMU_ACCEL` is `kvm` or `tcg`. Unlike [`Kvm::Auto`] this also finds a KVM under which guests
    /// hang.
    ///
    /// # Errors
    ///
    /// Another value of the variable.
    pub fn tested(kernel: &Path) -> Result<Self> {
        static FOUND: OnceLock<Kvm> = OnceLock::new();
        match env::var(OVERRIDE).as_deref() {
            Ok("kvm") => Ok(Self::On),
            Ok("tcg") => Ok(Self::Off),
            Ok(other) => bail!("{OVERRIDE} is \"{other}\"; set it to kvm or tcg, or unset it"),
            Err(_) => Ok(*FOUND.get_or_init(|| if works(kernel) { Self::On } else { Self::Off })),
        }
    }

    /// Whether QEMU is first started with KVM: for [`Kvm::Auto`] if this user may open `/dev/kvm`.
    pub(crate) fn is_tried(self) -> bool {
        let available = || OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        self == Self::On || (self == Self::Auto && available())
    }
}

/// Whether a guest starts with KVM. The flags of the CPU and the device do not prove it: on some hosts, mostly virtual machines, both
/// are there, and a guest hangs at its first instruction.
fn works(kernel: &Path) -> bool {
    let promised = fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpuinfo| has_virtualization(&cpuinfo))
        && Path::new("/dev/kvm").exists();
    if !promised {
        return false;
    }
    // Without a ramdisk the boot ends in a panic, long after the line that proves the start.
    let test = Machine { memory_mib: 512, time_limit: Duration::from_secs(10), ..Machine::new(kernel) };
    let reason = match capture(&test, Accel::Kvm) {
        Ok(outcome) if outcome.console.contains("Linux version") => return true,
        Ok(_) => "the kernel printed nothing for 10 s".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    eprintln!("KVM does not work on this host: {reason}. Going on with emulation");
    false
}

/// Whether the CPU of this `/proc/cpuinfo` can run guests.
fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_a_flag_of_the_cpu() {
        for (cpuinfo, expected) in [
            ("", false),
            ("processor\t: 0\nflags\t\t: fpu vmx sse\n", true),
            ("flags\t\t: fpu svm\n", true),
            ("flags\t\t: fpu sse svm_lock\n", false),
            ("vmx flags\t: vnmi\nflags\t\t: fpu\n", false),
            ("model name\t: svm\nflags\t\t: fpu\n", false),
        ] {
            assert_eq!(has_virtualization(cpuinfo), expected, "{cpuinfo:?}");
        }
    }
}
