//! `firn tarball`: what `firn kexec` makes, in one file.

use crate::summary;
use anyhow::Result;
use clap::Args;
use firn::image::built::Built;
use firn::image::kexec;
use firn::image::progress::Progress;
use std::path::PathBuf;

/// The words of `firn tarball`.
#[derive(Args)]
pub struct Tarball {
    /// Directory that firn build made
    build: PathBuf,

    /// The tarball, or a directory where it is called nixos-kexec-LABEL-SYSTEM.tar.zst
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

impl Tarball {
    /// Makes the tarball, and says what it is.
    pub fn run(self) -> Result<()> {
        let progress = if self.quiet { Progress::Quiet } else { Progress::for_stderr() };
        let built = Built::open(&self.build)?;
        let files = kexec::tarball(&built, &self.out, progress)?;
        if self.quiet { Ok(()) } else { summary::print(&built.manifest.label, &self.out, &files) }
    }
}
