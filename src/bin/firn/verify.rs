//! `firn verify`: compares the files of a build with its manifest.

use crate::text;
use anyhow::{Result, ensure};
use clap::Args;
use firn::formats::printable::printable_line;
use firn::host::progress::Progress;
use firn::inspect::verify::{self, Finding};
use std::io::{self, Write};
use std::path::PathBuf;

/// The arguments of `firn verify`.
#[derive(Args)]
pub struct Verify {
    /// Directory made by firn build
    directory: PathBuf,

    /// Print only faults
    #[arg(long, short)]
    quiet: bool,

    /// Print the result as JSON, and progress as lines of JSON on standard error
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Prints a line for each comparison. Fails if one finds a fault.
    pub fn run(self) -> Result<()> {
        let progress = match Progress::for_stderr() {
            _ if self.quiet => Progress::Quiet,
            _ if self.json => Progress::Json,
            // Without a terminal the findings are enough.
            Progress::Lines => Progress::Quiet,
            bar => bar,
        };
        let findings = verify::verify(&self.directory, progress)?;
        if self.json {
            text::print_json(&findings)?;
        } else {
            text::print(|out| Ok(self.show(&findings, out)?))?;
        }
        let faults = findings.iter().filter(|finding| finding.fault.is_some()).count();
        ensure!(
            faults == 0,
            "{} differs from its build ({faults} of {} comparisons failed); copy it again, or build it again",
            self.directory.display(),
            findings.len()
        );
        Ok(())
    }

    fn show(&self, findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
        for finding in findings {
            let result = match (&finding.fault, &finding.note) {
                (Some(fault), _) => fault,
                _ if self.quiet => continue,
                (None, Some(note)) => note,
                (None, None) => "OK",
            };
            writeln!(out, "{}: {}", finding.what, printable_line(result))?;
        }
        Ok(())
    }
}
