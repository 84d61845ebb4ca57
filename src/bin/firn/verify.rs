//! `firn verify`: compares the files of a directory with its manifest.

use crate::text;
use anyhow::{Result, bail, ensure};
use clap::Args;
use firn::formats::printable::printable_line;
use firn::host::progress::Progress;
use firn::inspect::verify::{self, Finding};
use std::io::{self, Write};
use std::path::PathBuf;

const NOTE: &str = "\
Ends with 0 if all files are those that firn made, and with 1 if one differs or cannot be verified.";

/// The arguments of `firn verify`.
#[derive(Args)]
#[command(after_help = NOTE)]
pub struct Verify {
    /// Directory made by firn build, ipxe or kexec, or unpacked from a tarball of firn tarball
    directory: PathBuf,

    /// Print only faults
    #[arg(long, short)]
    quiet: bool,

    /// Print the result as JSON, and progress as lines of JSON on standard error
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Prints a line for each comparison. Fails if one finds a fault, or if something could not be compared.
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
        if let Some(Finding { what, .. }) = findings.iter().find(|finding| finding.note.is_some()) {
            bail!(
                "{what} in {} are not verified: an older firn made the directory, without a manifest.json; make it again with firn ipxe \
                 or firn kexec",
                self.directory.display()
            );
        }
        Ok(())
    }

    fn show(&self, findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
        for finding in findings {
            let result = match (&finding.fault, &finding.note) {
                (Some(fault), _) => fault,
                (None, Some(note)) => note,
                _ if self.quiet => continue,
                (None, None) => "OK",
            };
            writeln!(out, "{}: {}", finding.what, printable_line(result))?;
        }
        Ok(())
    }
}
