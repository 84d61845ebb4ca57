//! `firn man`: manual pages, one for each subcommand.

use crate::Cli;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use std::fs;
use std::path::PathBuf;

/// The arguments of `firn man`.
#[derive(Args)]
pub struct Man {
    /// Output directory
    directory: PathBuf,
}

impl Man {
    /// Writes `firn.1`, `firn-build.1` and so on.
    pub fn run(self) -> Result<()> {
        fs::create_dir_all(&self.directory)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &self.directory))
            .with_context(|| format!("writing man pages to {}; give a writable directory", self.directory.display()))
    }
}
