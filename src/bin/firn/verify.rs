//! `firn verify`: whether a build is still what it was.

use crate::text;
use anyhow::{Result, ensure};
use clap::Args;
use firn::host::progress::Progress;
use firn::inspect::verify::{self, Finding};
use std::io::{self, Write};
use std::path::PathBuf;

/// The words of `firn verify`.
#[derive(Args)]
pub struct Verify {
    /// A directory that firn build made
    directory: PathBuf,

    /// Print nothing but what is wrong
    #[arg(long, short)]
    quiet: bool,

    /// Print JSON for programs: what was compared, and on standard error a line for each bit of progress
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Prints a line for everything that was compared. An error if something is wrong.
    pub fn run(self) -> Result<()> {
        let progress = match Progress::for_stderr() {
            _ if self.quiet => Progress::Quiet,
            _ if self.json => Progress::Json,
            // Without a terminal the findings say enough.
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
            "{} is not what was built ({faults} of {} comparisons failed); copy it again, or build it again",
            self.directory.display(),
            findings.len()
        );
        Ok(())
    }
    fn show(&self, findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
        for finding in findings {
            match (&finding.fault, &finding.note) {
                (Some(fault), _) => writeln!(out, "{}: {fault}", finding.what)?,
                _ if self.quiet => {}
                (None, Some(note)) => writeln!(out, "{}: {note}", finding.what)?,
                (None, None) => writeln!(out, "{}: as it should be", finding.what)?,
            }
        }
        Ok(())
    }
}
