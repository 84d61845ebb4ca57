//! Boot loaders.

use std::path::PathBuf;

/// The boot loader of a machine. Only [`Loader::Qemu`] uses kernel, ramdisk and command line of the
/// [`Machine`](crate::Machine). Every other one finds its own, and the machine's kernel only serves to find out whether KVM works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loader {
    /// QEMU itself: it copies kernel, ramdisk and command line into the memory.
    Qemu {
        /// A UEFI firmware such as OVMF. Without it the machine has QEMU's BIOS.
        firmware: Option<PathBuf>,
        /// Whether the machine has a network card, behind QEMU's NAT.
        network: bool,
    },
    /// iPXE in the ROM of the network card.
    Ipxe {
        /// The directory that QEMU serves by TFTP.
        directory: PathBuf,
        /// The name of the script there that iPXE starts.
        script: String,
        /// A UEFI firmware. Without it the machine has QEMU's BIOS.
        firmware: Option<PathBuf>,
    },
    /// A UEFI firmware that boots from a disk.
    Uefi {
        /// The firmware, such as OVMF.
        firmware: PathBuf,
        /// The contents of the disk. The firmware starts `EFI/BOOT/BOOTX64.EFI`, or `startup.nsh` in its shell.
        directory: PathBuf,
        /// Whether the machine also has a network card, without a ROM.
        network: bool,
    },
    /// A UEFI firmware that boots from a web server.
    Http {
        /// The code of a firmware whose variables are in a separate file, such as `OVMF_CODE.fd`.
        firmware: PathBuf,
        /// The file of variables, made by [`uefi::variables`](crate::uefi::variables). The machine does not change it.
        variables: PathBuf,
    },
}
