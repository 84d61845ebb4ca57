//! `firn tarball`: what `firn kexec` makes, in one file.

use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build::ways::built::Built;
use firn::build::ways::kexec;
use std::path::PathBuf;

/// The words of `firn tarball`.
#[derive(Args)]
pub struct Tarball {
    /// Directory that firn build made
    build: PathBuf,

    /// The tarball, or a directory where it is called nixos-kexec-LABEL-SYSTEM.tar.zst
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Put the files into a directory of this name in it
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    prefix: String,

    #[command(flatten)]
    report: Report,
}

impl Tarball {
    /// Makes the tarball, and says what it is.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let built = Built::open(&self.build)?;
        let files = kexec::tarball(&built, &self.out, &self.prefix, progress)?;
        self.report.made(&built.manifest.label, &self.out, &files)
    }
}
