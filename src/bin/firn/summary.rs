//! What was made, on standard output.

use crate::text;
use anyhow::{Context, Result};
use firn::image::Entry;
use std::path::Path;

/// Prints the label of a system, and the files that were made of it.
pub fn print(label: &str, out: &Path, files: &[Entry]) -> Result<()> {
    text::print(|stdout| {
        writeln!(stdout, "{label} in {}", out.display())?;
        for file in files {
            writeln!(stdout, "{:>12} bytes  {}", file.bytes, file.name)?;
        }
        Ok(())
    })
    .context("everything is made")
}
