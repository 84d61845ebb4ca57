//! `firn kexec`: what a running Linux boots a system from.

use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build::ways::built::Built;
use firn::build::ways::kexec;
use std::path::PathBuf;

/// The words of `firn kexec`.
#[derive(Args)]
pub struct Kexec {
    /// Directory that firn build made
    build: PathBuf,

    /// Directory for what is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    report: Report,
}

impl Kexec {
    /// Makes the directory, and says what there is then.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let built = Built::open(&self.build)?;
        let files = kexec::tree(&built, &self.out, progress)?;
        self.report.made(&built.manifest.label, &self.out, &files)
    }
}
