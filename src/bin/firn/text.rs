//! Printing: standard output, JSON and sizes.

use anyhow::{Context, Result, bail};
use firn::formats::printable::{PrintableWriter, printable_json, printable_lines};
use firn::host::progress;
use firn::inspect::ramdisk::{Contents, Ramdisk, Stop, Warning};
use firn::inspect::summary::Summary;
use serde::Serialize;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};

/// Runs `write` with standard output, in which control characters other than newlines and tabs are escaped. If the reader goes away, that
/// is no error: it has read enough.
pub fn print(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    print_to(PrintableWriter::new(BufWriter::new(io::stdout().lock())), write, PrintableWriter::finish)
}

/// The same for the contents of a file, which go to a pipe or a file as they are. A terminal gets text, with escaped control characters.
///
/// # Errors
///
/// Those of `write` and of writing, and binary contents for a terminal.
pub fn print_contents(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if io::stdout().is_terminal() {
        return print(|out| write(&mut Text(out)));
    }
    print_to(BufWriter::new(io::stdout().lock()), write, |mut out| out.flush())
}

fn print_to<W: Write>(
    mut out: W,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
    finish: impl FnOnce(W) -> io::Result<()>,
) -> Result<()> {
    let written = write(&mut out).and_then(|()| finish(out).context("writing to standard output"));
    match written {
        Err(error) if went_away(&error) => Ok(()),
        written => written,
    }
}

/// A writer that takes no zero byte, which no text has.
struct Text<W>(W);

impl<W: Write> Write for Text<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.contains(&0) {
            let advice =
                "the file is no text, and would change the terminal; write it to another file (firn cat … > FILE)";
            return Err(io::Error::other(advice));
        }
        self.0.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let json = printable_json(&serde_json::to_string_pretty(value)?);
    print(|out| Ok(writeln!(out, "{json}")?))
}

/// Prints a sentence about an error or a thing that is left out, on standard error.
pub fn complain(sentence: &str) {
    progress::tell(&format!("firn: {}", printable_lines(sentence)));
}

/// The next step after an error of the operating system that no command of firn can know better, as the end of its sentence.
pub fn next_step(error: &anyhow::Error) -> &'static str {
    match error.root_cause().downcast_ref().map(io::Error::kind) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            "; make room on that file system, or give a place on another one"
        }
        Some(ErrorKind::PermissionDenied) => "; change its permissions, or run firn as another user",
        _ => "",
    }
}

fn went_away(error: &anyhow::Error) -> bool {
    error.root_cause().downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Prints the warnings about a ramdisk that was read to standard error. Without contents the reader of the output went away.
///
/// # Errors
///
/// The place where the kernel stops unpacking, if it does not reach the end.
pub fn judge_ramdisk(ramdisk: &Ramdisk, contents: Option<Contents>) -> Result<()> {
    let Some(Contents { warnings, more_warnings, stop, .. }) = contents else { return Ok(()) };
    judge(&ramdisk.path.to_string_lossy(), &warnings, more_warnings, stop.as_ref())
}

/// The same for a summary, if it is about a ramdisk.
///
/// # Errors
///
/// As [`judge_ramdisk`].
pub fn judge_summary(summary: &Summary) -> Result<()> {
    let Some(ramdisk) = summary.ramdisk() else { return Ok(()) };
    judge(&ramdisk.path, &ramdisk.warnings, ramdisk.more_warnings, ramdisk.stop.as_ref())
}

fn judge(path: &str, warnings: &[Warning], more: usize, stop: Option<&Stop>) -> Result<()> {
    for warning in warnings {
        complain(&format!("{path}: {warning}"));
    }
    if more > 0 {
        complain(&format!("{path}: and {more} more warnings of this kind"));
    }
    match stop {
        Some(stop) => bail!("{path}: {stop}"),
        None => Ok(()),
    }
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
