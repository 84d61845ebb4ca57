//! `firn ipxe`: what machines with iPXE boot from.

use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build::ways::built::Built;
use firn::build::ways::ipxe::{self, Form};
use std::path::PathBuf;

/// The words of `firn ipxe`.
#[derive(Args)]
pub struct Ipxe {
    /// Directory that firn build made
    build: PathBuf,

    /// Directory for what is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Leave the store image out of the ramdisk, and have iPXE put it there
    #[arg(long)]
    split: bool,

    /// Where the files will be, if that is not beside the script
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,

    #[command(flatten)]
    report: Report,
}

impl Ipxe {
    /// Makes the directory, and says what there is then.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let built = Built::open(&self.build)?;
        let form = if self.split { Form::Split } else { Form::Fat };
        let files = ipxe::tree(&built, &self.out, form, self.base_url.as_deref(), progress)?;
        self.report.made(&built.manifest.label, &self.out, &files)
    }
}
