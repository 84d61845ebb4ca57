//! `firn uki`: a unified kernel image, one file that UEFI boots.

use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::uki::{self, UkiOptions};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  firn uki boot --out /media/usb/EFI/BOOT/BOOTX64.EFI
  firn uki boot --out nixos.efi --append \"console=ttyS0 quiet\"

Needs the EFI stub of systemd (Debian package systemd-boot-efi).";

/// The arguments of `firn uki`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Uki {
    /// Directory made by firn build
    build: PathBuf,

    /// Output file, or a directory in which it is called nixos.efi
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// EFI stub of systemd. Default: the path in the environment variable `FIRN_STUB`, or that of the Debian package
    /// systemd-boot-efi
    #[arg(long, value_name = "FILE")]
    stub: Option<PathBuf>,

    /// Kernel parameters to append to those of the build
    #[arg(long, value_name = "PARAMS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    append: String,

    /// Leave out the store image: the boot loader has to add it, as a further ramdisk. Needs the stub of systemd 261 or newer
    #[arg(long)]
    without_image: bool,

    #[command(flatten)]
    report: Report,
}

impl Uki {
    /// Makes the image, and prints its name and size.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let build = BuildDirectory::open(&self.build)?;
        let options = UkiOptions { stub: self.stub, append: self.append, without_image: self.without_image };
        let files = uki::image(&build, &self.out, &options, progress)?;
        self.report.made(&build.manifest.label, &self.out, &files)
    }
}
