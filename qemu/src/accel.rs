//! How the instructions of the guest are run.

/// The CPU model that QEMU emulates. It has RDRAND: without it (or a virtio-rng) the first Nix command waits seconds for
/// entropy. It has no CX16: with it kernel 6.12 crashed in four boots of six, after a `cmpxchg16b` that seems to leave garbage in the
/// flags (QEMU 7.2), and without it in none. QEMU's emulation lacks the other removed features and would print a warning for each.
const EMULATED: &str = "Haswell-noTSX,-cx16,-pcid,-x2apic,-tsc-deadline,-invpcid";

/// The ways to run the instructions of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    /// On the host's CPU.
    Kvm,
    /// Emulated by QEMU (TCG).
    Tcg,
    /// Emulated; each instruction is 1 ns of the guest's time.
    Counted,
}

impl Accel {
    /// The arguments of QEMU.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg", "-cpu", EMULATED],
            // Clock, date and QEMU's random numbers are the same at each run.
            Self::Counted => &[
                "-accel",
                "tcg",
                "-cpu",
                EMULATED,
                "-icount",
                "shift=0,sleep=off",
                "-rtc",
                "base=2026-01-01,clock=vm",
                "-seed",
                "42",
            ],
        }
    }

    /// The kernel parameters.
    pub(crate) fn parameters(self) -> &'static str {
        match self {
            Self::Kvm => "",
            // On a busy host the emulated timer is late, and the kernel panics: "IO-APIC + timer doesn't work".
            Self::Tcg => "no_timer_check",
            // A kernel at another address, or one that waits for entropy, needs another number of instructions.
            Self::Counted => "nokaslr random.trust_cpu=on",
        }
    }
}
