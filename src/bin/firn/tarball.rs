//! `firn tarball`: the directory of `firn kexec`, as one file.

use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::kexec;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Example:
  firn tarball boot --out nixos.tar.zst --prefix nixos
  ssh root@host 'tar --extract --zstd && nixos/kexec-boot' < nixos.tar.zst

Needs no other programs here; kexec-boot needs kexec (kexec-tools) on the machine that it boots.";

/// The arguments of `firn tarball`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Tarball {
    /// Directory made by firn build
    build: PathBuf,

    /// Output file, or a directory in which it is called nixos-kexec-LABEL-SYSTEM.tar.zst
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Name of a directory in the tarball for the files. Default: none
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    prefix: String,

    #[command(flatten)]
    report: Report,
}

impl Tarball {
    /// Makes the tarball, and prints its name and size.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let build = BuildDirectory::open(&self.build)?;
        let files = kexec::tarball(&build, &self.out, &self.prefix, progress)?;
        self.report.made(&build.manifest.label, &self.out, &files)
    }
}
