//! `firn completions`: completions of firn's arguments for a shell.

use crate::{Cli, text};
use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// The arguments of `firn completions`.
#[derive(Args)]
pub struct Completions {
    /// Shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(self) -> Result<()> {
        // Into memory first: the generator panics if the reader of its output goes away.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "firn", &mut script);
        text::print(|out| Ok(out.write_all(&script)?))
    }
}
