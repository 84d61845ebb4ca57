//! `firn kexec`: a directory from which a running Linux boots a system by kexec.

use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::kexec;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Example:
  firn kexec boot --out tree
  rsync --archive tree/ root@host:nixos/ && ssh root@host nixos/kexec-boot

Needs no other programs here; kexec-boot needs kexec (kexec-tools) on the machine that it boots.";

/// The arguments of `firn kexec`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Kexec {
    /// Directory made by firn build
    build: PathBuf,

    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    report: Report,
}

impl Kexec {
    /// Makes the directory, and prints its files.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let build = BuildDirectory::open(&self.build)?;
        let files = kexec::tree(&build, &self.out, progress)?;
        self.report.made(&build.manifest.label, &self.out, &files)
    }
}
