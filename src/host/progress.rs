//! Progress of long steps: a bar on a terminal, plain lines elsewhere, JSON for programs, or nothing.

use crate::formats::printable::{printable_json, printable_lines};
use crate::host::interrupt::Interruptible;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The form of progress. All of it goes to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A moving bar.
    Bar,
    /// A line at the start of a step and one at its end.
    Lines,
    /// A JSON object per line: at the start of a step, at its end, and at most four times a second in between.
    Json,
    /// Nothing.
    Quiet,
}

/// Prints a line on standard error. A terminal or a pipe that has gone away is no error here: the step goes on, and nobody can be told.
pub fn tell(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// A running step.
#[derive(Debug)]
pub struct Step {
    mode: Progress,
    name: &'static str,
    start: Instant,
    bar: ProgressBar,
    /// The quarter of a second of the last line.
    last_quarter: AtomicU64,
}

/// The state of a step, as JSON.
#[derive(Debug, Serialize)]
struct StepState {
    step: &'static str,
    bytes: u64,
    total: u64,
    seconds: f64,
    /// None while less than a hundredth is done.
    seconds_left: Option<u128>,
    done: bool,
}

impl Progress {
    /// A bar if standard error is a terminal, else lines.
    #[must_use]
    pub fn for_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Bar } else { Self::Lines }
    }

    /// Prints a sentence, with escaped control characters: it may have names of others.
    pub fn say(self, sentence: &str) {
        match self {
            Self::Quiet => {}
            Self::Json => tell(&printable_json(&json!({"note": sentence}).to_string())),
            Self::Bar | Self::Lines => tell(&printable_lines(sentence)),
        }
    }

    /// Starts a step of `bytes` bytes.
    #[must_use]
    pub fn step(self, name: &'static str, bytes: u64) -> Step {
        let target = if self == Self::Bar { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let style = ProgressStyle::with_template("{msg:24} [{bar:30}] {bytes}/{total_bytes}, {eta} left");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(name);
        let step = Step { mode: self, name, start: Instant::now(), bar, last_quarter: AtomicU64::new(0) };
        match self {
            Self::Lines => tell(&format!("{name} …")),
            Self::Json => step.tell(false),
            Self::Bar | Self::Quiet => {}
        }
        step
    }
}

impl Step {
    /// Counts more bytes as done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        let quarter = self.quarter();
        if self.mode == Progress::Json && self.last_quarter.swap(quarter, Ordering::Relaxed) != quarter {
            self.tell(false);
        }
    }

    /// Counts the bytes that are read from `reader` as done. The reader fails when the build is interrupted.
    pub fn reading<R: Read>(&self, reader: R) -> impl Read {
        Counted { reader: Interruptible(reader), step: self }
    }

    /// Ends the step. A step that is dropped instead has failed; its bar disappears.
    pub fn done(self) {
        let seconds = self.start.elapsed().as_secs_f64();
        match self.mode {
            Progress::Json => self.tell(true),
            Progress::Bar | Progress::Lines => {
                self.bar.finish_and_clear();
                tell(&format!("{}: {seconds:.1} s", self.name));
            }
            Progress::Quiet => {}
        }
    }

    fn quarter(&self) -> u64 {
        let elapsed = self.start.elapsed();
        elapsed.as_secs() * 4 + u64::from(elapsed.subsec_millis() / 250)
    }

    fn tell(&self, done: bool) {
        let total = self.bar.length().unwrap_or_default();
        let bytes = if done { total } else { self.bar.position().min(total) };
        let state = StepState::new(self.name, bytes, total, self.start.elapsed(), done);
        tell(&serde_json::to_string(&state).unwrap_or_default());
    }
}

impl StepState {
    fn new(step: &'static str, bytes: u64, total: u64, elapsed: Duration, done: bool) -> Self {
        let known = bytes > 0 && bytes >= total / 100;
        let left = known.then(|| elapsed.as_millis() * u128::from(total - bytes) / u128::from(bytes));
        let seconds = (elapsed.as_secs_f64() * 10.0).round() / 10.0;
        Self { step, bytes, total, seconds, seconds_left: left.map(|milliseconds| milliseconds.div_ceil(1000)), done }
    }
}

/// A reader that counts its bytes for a step.
struct Counted<'a, R> {
    reader: R,
    step: &'a Step,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.read(buffer)?;
        self.step.advance(bytes as u64);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_step() {
        for (bytes, milliseconds, done, expected) in [
            (0, 2000, false, r#"{"step":"x","bytes":0,"total":400,"seconds":2.0,"seconds_left":null,"done":false}"#),
            (3, 2000, false, r#"{"step":"x","bytes":3,"total":400,"seconds":2.0,"seconds_left":null,"done":false}"#),
            (100, 2500, false, r#"{"step":"x","bytes":100,"total":400,"seconds":2.5,"seconds_left":8,"done":false}"#),
            (400, 3340, true, r#"{"step":"x","bytes":400,"total":400,"seconds":3.3,"seconds_left":0,"done":true}"#),
        ] {
            let state = StepState::new("x", bytes, 400, Duration::from_millis(milliseconds), done);
            assert_eq!(serde_json::to_string(&state).unwrap(), expected);
        }
    }
}
