//! How far a long step is: a bar on a terminal, plain lines elsewhere, JSON for programs, or nothing.

use crate::host::interrupt::Interruptible;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use std::io::{self, IsTerminal, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where to show progress. All of it goes to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A bar that moves.
    Bar,
    /// A line when a step starts and one when it is done.
    Lines,
    /// A JSON object on a line of its own, when a step starts, when it is done, and four times a second at most in between.
    Json,
    /// Nothing.
    Quiet,
}

/// A step that is under way.
#[derive(Debug)]
pub struct Step {
    mode: Progress,
    name: &'static str,
    start: Instant,
    bar: ProgressBar,
    /// In which quarter of a second something was last said.
    said: AtomicU64,
}

/// What programs get to read of a step.
#[derive(Debug, Serialize)]
struct News {
    step: &'static str,
    bytes: u64,
    total: u64,
    seconds: f64,
    /// None as long as less than a hundredth is done.
    seconds_left: Option<u128>,
    done: bool,
}

impl Progress {
    /// A bar if standard error is a terminal, else lines.
    #[must_use]
    pub fn for_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Bar } else { Self::Lines }
    }

    /// Says a sentence.
    pub fn say(self, sentence: &str) {
        match self {
            Self::Quiet => {}
            Self::Json => eprintln!("{}", json!({"note": sentence})),
            Self::Bar | Self::Lines => eprintln!("{sentence}"),
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
        let step = Step { mode: self, name, start: Instant::now(), bar, said: AtomicU64::new(0) };
        match self {
            Self::Lines => eprintln!("{name} …"),
            Self::Json => step.tell(false),
            Self::Bar | Self::Quiet => {}
        }
        step
    }
}

impl Step {
    /// Says that so many bytes more are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        let quarter = self.quarter();
        if self.mode == Progress::Json && self.said.swap(quarter, Ordering::Relaxed) != quarter {
            self.tell(false);
        }
    }

    /// Counts what is read from `reader` as done. It ends with an error when the build is interrupted.
    pub fn reading<R: Read>(&self, reader: R) -> impl Read {
        Counted { reader: Interruptible(reader), step: self }
    }

    /// Ends the step. One that is dropped instead has failed; its bar goes away.
    pub fn done(self) {
        let seconds = self.start.elapsed().as_secs_f64();
        match self.mode {
            Progress::Json => self.tell(true),
            Progress::Bar | Progress::Lines => {
                self.bar.finish_and_clear();
                eprintln!("{}: {seconds:.1} s", self.name);
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
        let news = News::new(self.name, bytes, total, self.start.elapsed(), done);
        eprintln!("{}", serde_json::to_string(&news).unwrap_or_default());
    }
}

impl News {
    fn new(step: &'static str, bytes: u64, total: u64, elapsed: Duration, done: bool) -> Self {
        let known = bytes > 0 && bytes >= total / 100;
        let left = known.then(|| elapsed.as_millis() * u128::from(total - bytes) / u128::from(bytes));
        let seconds = (elapsed.as_secs_f64() * 10.0).round() / 10.0;
        Self { step, bytes, total, seconds, seconds_left: left.map(|milliseconds| milliseconds.div_ceil(1000)), done }
    }
}

/// A reader that counts for a step.
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
    fn what_programs_read() {
        for (bytes, milliseconds, done, expected) in [
            (0, 2000, false, r#"{"step":"x","bytes":0,"total":400,"seconds":2.0,"seconds_left":null,"done":false}"#),
            (3, 2000, false, r#"{"step":"x","bytes":3,"total":400,"seconds":2.0,"seconds_left":null,"done":false}"#),
            (100, 2500, false, r#"{"step":"x","bytes":100,"total":400,"seconds":2.5,"seconds_left":8,"done":false}"#),
            (400, 3340, true, r#"{"step":"x","bytes":400,"total":400,"seconds":3.3,"seconds_left":0,"done":true}"#),
        ] {
            let news = News::new("x", bytes, 400, Duration::from_millis(milliseconds), done);
            assert_eq!(serde_json::to_string(&news).unwrap(), expected);
        }
    }
}
