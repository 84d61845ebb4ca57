//! `firn boot`: a build under QEMU.

use anyhow::{Context, Result};
use clap::Args;
use firn::host::{interrupt, publication};
use qemu::{Kvm, Loader, Machine};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  firn boot boot
  firn boot boot --append firn.on_failure=menu
  firn boot boot --net --efi /usr/share/ovmf/OVMF.fd

To end the machine at any time, press Ctrl-a, then x. Ctrl-a, then c, opens QEMU's monitor; all other keys go to the machine. If
standard input is no terminal, the console is only shown, and Ctrl-C or SIGTERM ends the machine.

The machine adds earlyprintk=ttyS0 console=ttyS0 panic=-1 before the kernel parameters of the build: its console is a serial port, and
a kernel panic ends it. With panic=-1 a boot that fails also ends in a panic, without the rescue menu. To see the menu, add
--append firn.on_failure=menu.

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
        publication::settle(&self.directory)?;
        let mut machine = Machine::of_build(&self.directory)?;
        machine.memory_mib = self.memory.unwrap_or(machine.memory_mib);
        machine.loader = Loader::Qemu { firmware: self.efi, network: self.net };
        if let Some(parameters) = self.append {
            machine.append(&parameters);
        }
        machine.interact(self.kvm, &interrupt::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_parameters_of_the_machine() {
        assert!(EXAMPLES.contains(qemu::OWN_PARAMETERS));
    }
}
