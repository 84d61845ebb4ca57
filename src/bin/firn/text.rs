//! Printing: standard output, JSON and sizes.

use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{self, BufWriter, ErrorKind, Write};

/// Runs `write` with standard output. If the reader goes away, that is no error: it has read enough.
pub fn print(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write(&mut out).and_then(|()| out.flush().context("writing to standard output"));
    match written {
        Err(error) if went_away(&error) => Ok(()),
        written => written,
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
