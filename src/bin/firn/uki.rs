//! `firn uki`: what UEFI boots from, in one file.

use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build::ways::built::Built;
use firn::build::ways::uki::{self, Options};
use std::path::PathBuf;

/// The words of `firn uki`.
#[derive(Args)]
pub struct Uki {
    /// Directory that firn build made
    build: PathBuf,

    /// The program, or a directory where it is called nixos.efi
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// systemd's stub; without this the one that `FIRN_STUB` names, or that the package systemd-boot-efi has installed
    #[arg(long, value_name = "FILE")]
    stub: Option<PathBuf>,

    /// More words for the kernel command line
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    append: String,

    /// Leave the store image out, for a boot loader that brings it as a ramdisk of its own; takes the stub of systemd 261 or newer
    #[arg(long)]
    without_image: bool,

    #[command(flatten)]
    report: Report,
}

impl Uki {
    /// Makes the program, and says what it is.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let built = Built::open(&self.build)?;
        let options = Options { stub: self.stub, append: self.append, without_image: self.without_image };
        let files = uki::image(&built, &self.out, &options, progress)?;
        self.report.made(&built.manifest.label, &self.out, &files)
    }
}
