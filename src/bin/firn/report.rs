//! The output of the subcommands that make files: progress, and the list of files at the end.

use crate::text;
use anyhow::{Context, Result};
use clap::Args;
use firn::contract::manifest::FileEntry;
use firn::host::interrupt;
use firn::host::progress::Progress;
use serde::Serialize;
use std::fmt::Display;
use std::path::Path;

/// The form of the output.
#[derive(Args)]
pub struct Report {
    /// Print only errors, and with --json the result
    #[arg(long, short)]
    quiet: bool,

    /// Print the result as JSON, and progress as lines of JSON on standard error
    #[arg(long)]
    json: bool,
}

/// The output files, as JSON.
#[derive(Serialize)]
struct Made<'a, Name> {
    label: &'a str,
    directory: &'a Path,
    files: &'a [FileEntry<Name>],
}

impl Report {
    /// The form of progress. From here on an interrupted step ends with an error, so that its temporary files are deleted.
    pub fn progress(&self) -> Result<Progress> {
        interrupt::listen().context("catching the signals that interrupt")?;
        Ok(match (self.quiet, self.json) {
            (true, _) => Progress::Quiet,
            (false, true) => Progress::Json,
            (false, false) => Progress::for_stderr(),
        })
    }

    /// Prints the label of a system and its output files, which are in the directory `out` or are the file `out`.
    pub fn made<Name: Serialize + Display>(&self, label: &str, out: &Path, files: &[FileEntry<Name>]) -> Result<()> {
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
        printed.context("all files are complete, but they cannot be listed")
    }
}
