//! `firn diff`: the differences between two builds.

use crate::text::{self, size};
use anyhow::Result;
use clap::Args;
use firn::formats::printable::printable_line;
use firn::inspect::difference::{self, Change, Difference};
use std::io::{self, Write};
use std::path::PathBuf;

/// The arguments of `firn diff`.
#[derive(Args)]
pub struct Diff {
    /// Old build, ramdisk, unified kernel image or store image
    before: PathBuf,

    /// New build, ramdisk, unified kernel image or store image
    after: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Diff {
    /// Prints the differences; without any, only the sizes.
    pub fn run(self) -> Result<()> {
        let difference = difference::between(&self.before, &self.after)?;
        if self.json {
            return text::print_json(&difference);
        }
        text::print(|out| Ok(show(&difference, out)?))
    }
}

fn show(difference: &Difference, out: &mut dyn Write) -> io::Result<()> {
    if let Some((before, after)) = &difference.kernel_release {
        writeln!(out, "kernel: {} -> {}", printable_line(before), printable_line(after))?;
    }
    changes("command line", &difference.cmdline, Clone::clone, out)?;
    changes("modules", &difference.modules, Clone::clone, out)?;
    changes("store paths", &difference.store_paths, |path| format!("{} ({})", path.path, size(path.bytes)), out)?;
    changes("kept by Nix", &difference.roots, Clone::clone, out)?;
    let (before, after) = difference.store_bytes;
    let sign = if after < before { '-' } else { '+' };
    writeln!(out, "size of the store: {} -> {} ({sign}{})", size(before), size(after), size(after.abs_diff(before)))
}

fn changes<T>(name: &str, change: &Change<T>, text: impl Fn(&T) -> String, out: &mut dyn Write) -> io::Result<()> {
    if change.removed.is_empty() && change.added.is_empty() {
        return Ok(());
    }
    writeln!(out, "{name}: {} removed, {} added", change.removed.len(), change.added.len())?;
    for removed in &change.removed {
        writeln!(out, "  - {}", printable_line(&text(removed)))?;
    }
    for added in &change.added {
        writeln!(out, "  + {}", printable_line(&text(added)))?;
    }
    Ok(())
}
