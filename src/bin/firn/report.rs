//! What the subcommands that make something say: how far they are, and at the end what there is.

use crate::text;
use anyhow::{Context, Result};
use clap::Args;
use firn::contract::manifest::FileEntry;
use firn::host::interrupt;
use firn::host::progress::Progress;
use serde::Serialize;
use std::path::Path;

/// For whom it is said.
#[derive(Args)]
pub struct Report {
    /// Print nothing but errors, and what --json asks for on standard output
    #[arg(long, short)]
    quiet: bool,

    /// Print JSON for programs: what was made, and on standard error a line for each bit of progress
    #[arg(long)]
    json: bool,
}

/// What was made, for programs.
#[derive(Serialize)]
struct Made<'a> {
    label: &'a str,
    directory: &'a Path,
    files: &'a [FileEntry],
}

impl Report {
    /// How progress is shown, for what takes long and is not to leave anything behind when it is interrupted.
    pub fn progress(&self) -> Result<Progress> {
        interrupt::listen().context("catching the signals that interrupt")?;
        Ok(match (self.quiet, self.json) {
            (true, _) => Progress::Quiet,
            (false, true) => Progress::Json,
            (false, false) => Progress::for_stderr(),
        })
    }

    /// Prints the label of a system, and the files that were made of it in `out`, or as `out`.
    pub fn made(&self, label: &str, out: &Path, files: &[FileEntry]) -> Result<()> {
        let directory = if out.is_dir() { out } else { out.parent().unwrap_or(out) };
        let printed = match (self.json, self.quiet) {
            (true, _) => text::print_json(&Made { label, directory, files }),
            (false, true) => Ok(()),
            (false, false) => text::print(|stdout| {
                writeln!(stdout, "{label} in {}", out.display())?;
                for file in files {
                    writeln!(stdout, "{:>12} bytes  {}", file.bytes, file.name)?;
                }
                Ok(())
            }),
        };
        printed.context("everything is made")
    }
}
