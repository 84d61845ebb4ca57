//! `firn boot`: a build under QEMU.

use anyhow::{Context, Result};
use clap::Args;
use firn::host::interrupt;
use firn::inspect::machine::{Kvm, Machine};
use std::path::PathBuf;

/// The words of `firn boot`.
#[derive(Args)]
pub struct Boot {
    /// A directory that firn build made
    directory: PathBuf,

    /// Size of the memory, MiB; without this twice the ramdisk and 512, at least 1024
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,

    /// Words for the kernel, after those of the build
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Option<String>,

    /// Whether this machine's own CPU runs the guest
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    kvm: Kvm,

    /// Give the machine a network card, behind QEMU's own NAT
    #[arg(long)]
    net: bool,

    /// Boot it by a UEFI firmware, such as /usr/share/ovmf/OVMF.fd
    #[arg(long, value_name = "FILE")]
    efi: Option<PathBuf>,
}

impl Boot {
    /// Boots it, until it switches itself off.
    pub fn run(self) -> Result<()> {
        interrupt::listen().context("catching the signals that interrupt")?;
        let mut machine = Machine::of_build(&self.directory)?;
        machine.memory = self.memory.unwrap_or(machine.memory);
        machine.net = self.net;
        machine.efi = self.efi;
        machine.kvm = self.kvm;
        if let Some(words) = self.append {
            machine.cmdline = format!("{} {words}", machine.cmdline);
        }
        machine.run()
    }
}
