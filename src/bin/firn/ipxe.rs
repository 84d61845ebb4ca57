//! `firn ipxe`: a directory that machines with iPXE boot from.

use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::ipxe::{self, Form};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  firn ipxe boot --out /srv/http/boot
  firn ipxe boot --out /srv/http/boot --split --base-url http://server/boot

Needs no other programs. In iPXE: chain http://server/boot/netboot.ipxe";

/// The arguments of `firn ipxe`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Ipxe {
    /// Directory made by firn build
    build: PathBuf,

    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Serve the store image as a separate file, which iPXE adds to the ramdisk
    #[arg(long)]
    split: bool,

    /// URL of the directory with the files. Default: the one with netboot.ipxe
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,

    #[command(flatten)]
    report: Report,
}

impl Ipxe {
    /// Makes the directory, and prints its files.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let build = BuildDirectory::open(&self.build)?;
        let form = if self.split { Form::Split } else { Form::Combined };
        let files = ipxe::tree(&build, &self.out, form, self.base_url.as_deref(), progress)?;
        self.report.made(&build.manifest.label, &self.out, &files)
    }
}
