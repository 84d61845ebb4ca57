//! How the guest's instructions are run.

use super::{Machine, Outcome};
use anyhow::{Result, bail};
use std::env;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Names the acceleration instead of finding out: `kvm` or `tcg`.
const OVERRIDE: &str = "FIRN_QEMU_ACCEL";

/// A CPU that QEMU translates itself. It has RDRAND: without that (or a virtio-rng) the first Nix command waits seconds for
/// entropy. It has no CX16: with it kernel 6.12 died in four
/// boots of six, after a `cmpxchg16b` that seems to leave garbage in the flags (QEMU 7.2), and without it in none. The
/// other features are those that TCG lacks and would warn of at every start.
const TRANSLATED: &str = "Haswell-noTSX,-cx16,-pcid,-x2apic,-tsc-deadline,-invpcid";

/// The ways to run a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the host's CPU.
    Kvm,
    /// By translation.
    Tcg,
    /// By translation, each instruction 1 ns of the guest's time.
    Counted,
}

impl Accel {
    /// What QEMU has to be told.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg", "-cpu", TRANSLATED],
            // Everything that differs from one run to the next is fixed: the clock, the date, QEMU's random numbers.
            Self::Counted => &[
                "-accel",
                "tcg",
                "-cpu",
                TRANSLATED,
                "-icount",
                "shift=0,sleep=off",
                "-rtc",
                "base=2026-01-01,clock=vm",
                "-seed",
                "42",
            ],
        }
    }

    /// What the kernel has to be told.
    pub fn words(self) -> &'static str {
        match self {
            Self::Kvm | Self::Tcg => "",
            // Another place in memory is another number of instructions, and so is a wait for entropy.
            Self::Counted => "nokaslr random.trust_cpu=on",
        }
    }
}

/// The fastest way that works on this host. Found out once for the whole process, with a boot of `kernel`.
///
/// # Errors
///
/// An override that names neither.
pub fn choose(kernel: &Path) -> Result<Accel> {
    static FOUND: OnceLock<Accel> = OnceLock::new();
    match env::var(OVERRIDE).as_deref() {
        Ok("kvm") => Ok(Accel::Kvm),
        Ok("tcg") => Ok(Accel::Tcg),
        Ok(other) => bail!("{OVERRIDE} is \"{other}\"; set it to kvm or tcg, or unset it to have firn find out"),
        Err(_) => Ok(*FOUND.get_or_init(|| if kvm_works(kernel) { Accel::Kvm } else { Accel::Tcg })),
    }
}

/// Whether a guest gets somewhere with KVM. Neither the CPU's flags nor the device prove it: there are hosts (machines
/// that are guests themselves, mostly) that have them and where a guest hangs at its first instruction.
fn kvm_works(kernel: &Path) -> bool {
    let promised = fs::read_to_string("/proc/cpuinfo").is_ok_and(|cpuinfo| has_virtualization(&cpuinfo))
        && Path::new("/dev/kvm").exists();
    if !promised {
        return false;
    }
    let probe = Machine { memory_mib: 512, time_limit: Duration::from_secs(10), ..Machine::new(kernel) };
    // No ramdisk: it ends in a panic, which is far enough.
    match probe.run_with(Accel::Kvm) {
        Ok(Outcome { console, .. }) if console.contains("Linux version") => true,
        Ok(_) => {
            eprintln!("KVM is there and does not work: the kernel says nothing for 10 s. Going on without it");
            false
        }
        Err(error) => {
            eprintln!("KVM is there and does not work: {error:#}. Going on without it");
            false
        }
    }
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
