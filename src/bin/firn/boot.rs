//! `firn boot`: a build under QEMU.

use anyhow::{Context, Result};
use clap::Args;
use firn::build::ways::limits;
use firn::host::{interrupt, publication};
use qemu::{Kvm, Loader, Machine};
use std::path::PathBuf;

/// The kernel parameters of the machine itself. Nothing here changes what a boot that fails does.
const OWN_PARAMETERS: &str = "earlyprintk=ttyS0 console=ttyS0";

const EXAMPLES: &str = "\
Examples:
  firn boot boot
  firn boot boot --append panic=-1
  firn boot boot --net --efi /usr/share/ovmf/OVMF.fd

To end the machine at any time, press Ctrl-a, then x. Ctrl-a, then c, opens QEMU's monitor; all other keys go to the machine. If
standard input is no terminal, the console is only shown, and Ctrl-C or SIGTERM ends the machine.

The machine adds earlyprintk=ttyS0 console=ttyS0 before the kernel parameters of the build, since its console is a serial port. A boot
that fails shows the rescue menu, as on a real machine, and a kernel panic stays on the console. The machine ends when it powers off or
reboots. To end it after a failure, too, as a script needs it, add --append panic=-1.

Needs qemu-system-x86_64 (QEMU). Only builds for x86_64-linux can be booted.";

/// The arguments of `firn boot`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Boot {
    /// Directory made by firn build
    directory: PathBuf,

    /// Memory of the machine, MiB. Default: twice the size of the ramdisk plus 512, at least 1024
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    memory: Option<u32>,

    /// Kernel parameters to add after those of the build
    #[arg(long, value_name = "PARAMS", allow_hyphen_values = true)]
    append: Option<String>,

    /// Whether to use KVM, which is faster than emulation
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    kvm: Kvm,

    /// Give the machine a network card, behind QEMU's NAT
    #[arg(long)]
    net: bool,

    /// UEFI firmware to boot with, such as /usr/share/ovmf/OVMF.fd. Default: QEMU's BIOS
    #[arg(long, value_name = "FILE")]
    efi: Option<PathBuf>,
}

impl Boot {
    /// Boots the build, and returns when the machine has switched itself off.
    pub fn run(self) -> Result<()> {
        interrupt::listen().context("catching the signals that interrupt")?;
        publication::ensure_settled(&self.directory)?;
        let mut machine = Machine::of_build(&self.directory)?;
        machine.memory_mib = self.memory.unwrap_or(machine.memory_mib);
        machine.own_parameters = OWN_PARAMETERS;
        machine.loader = Loader::Qemu { firmware: self.efi, network: self.net };
        let append = self.append.unwrap_or_default();
        // The machine's own parameters come before these.
        let line = limits::extended(&machine.cmdline, &append)?;
        limits::ensure_bootable(&line, &machine.kernel, limits::Loader::Any)?;
        machine.cmdline = line.to_string();
        machine.interact(self.kvm, &interrupt::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_10_the_help_names_the_parameters_of_the_machine() {
        assert!(EXAMPLES.contains(&format!("adds {OWN_PARAMETERS} before")));
    }
}
