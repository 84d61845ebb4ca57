//! Printing: standard output, JSON, warnings and sizes.

use anyhow::{Context, Result, bail};
use firn::inspect::ramdisk::{Contents, Ramdisk, Stop, Warning};
use firn::inspect::summary::Summary;
use serde::Serialize;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

/// Runs `write` with standard output. If the reader goes away, that is no error: it has read enough.
pub fn print(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    print_and(write).map(drop)
}

/// The same for a function that returns something. None if the reader went away.
pub fn print_and<T>(write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<Option<T>> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write(&mut out);
    match written.and_then(|written| out.flush().context("writing to standard output").map(|()| written)) {
        Err(error) if went_away(&error) => Ok(None),
        written => written.map(Some),
    }
}

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value)?;
    print(|out| Ok(writeln!(out, "{json}")?))
}

fn went_away(error: &anyhow::Error) -> bool {
    error.root_cause().downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Prints the warnings about a ramdisk to standard error.
///
/// # Errors
///
/// The place where the kernel stops unpacking, if it does not reach the end.
fn judge(path: &Path, warnings: &[Warning], more: usize, stop: Option<&Stop>) -> Result<()> {
    for warning in warnings {
        eprintln!("firn: {}: {warning}", path.display());
    }
    if more > 0 {
        eprintln!("firn: {}: and {more} more warnings of this kind", path.display());
    }
    match stop {
        Some(stop) => bail!("{}: {stop}", path.display()),
        None => Ok(()),
    }
}

/// The same for a ramdisk that was read.
///
/// # Errors
///
/// As [`judge`].
pub fn judge_ramdisk(ramdisk: &Ramdisk, contents: &Contents) -> Result<()> {
    judge(&ramdisk.path, &contents.warnings, contents.more_warnings, contents.stop.as_ref())
}

/// The same for a summary, if it is about a ramdisk.
///
/// # Errors
///
/// As [`judge`].
pub fn judge_summary(summary: &Summary) -> Result<()> {
    let Some(ramdisk) = summary.ramdisk() else { return Ok(()) };
    judge(Path::new(&ramdisk.path), &ramdisk.warnings, ramdisk.more_warnings, ramdisk.stop.as_ref())
}

/// A size for people: in bytes below 1 KiB, else with one decimal.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    // Tenths of the unit, rounded; 1023.95 of one is 1.0 of the next.
    let tenths = |shift: u32| (u128::from(bytes) * 10 + (1 << (shift - 1))) >> shift;
    let fits = (10..).step_by(10).zip(units).find(|(shift, unit)| tenths(*shift) < 10_240 || *unit == "TiB");
    match fits {
        Some((shift, unit)) if bytes >= 1024 => format!("{}.{} {unit}", tenths(shift) / 10, tenths(shift) % 10),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_524, "1023.9 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
