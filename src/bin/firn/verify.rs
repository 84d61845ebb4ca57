//! `firn verify`: whether a build is still what it was.

use crate::text;
use anyhow::{Result, ensure};
use clap::Args;
use firn::image::progress::Progress;
use firn::inspect::verify;
use std::path::PathBuf;

/// The words of `firn verify`.
#[derive(Args)]
pub struct Verify {
    /// A directory that firn build made
    directory: PathBuf,

    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

impl Verify {
    /// Prints a line for everything that was compared. An error if something is wrong.
    pub fn run(self) -> Result<()> {
        // Without a terminal the findings say enough.
        let progress = Some(Progress::for_stderr()).filter(|progress| *progress == Progress::Bar && !self.quiet);
        let findings = verify::verify(&self.directory, progress.unwrap_or(Progress::Quiet))?;
        text::print(|out| {
            for finding in &findings {
                match &finding.fault {
                    Some(fault) => writeln!(out, "{}: {fault}", finding.what)?,
                    None if self.quiet => {}
                    None => writeln!(out, "{}: as it should be", finding.what)?,
                }
            }
            Ok(())
        })?;
        let faults = findings.iter().filter(|finding| finding.fault.is_some()).count();
        ensure!(
            faults == 0,
            "{} is not what was built ({faults} of {} comparisons failed); copy it again, or build it again",
            self.directory.display(),
            findings.len()
        );
        Ok(())
    }
}
