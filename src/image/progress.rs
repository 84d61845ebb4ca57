//! How far a long step is: a bar on a terminal, plain lines elsewhere, or nothing.

use super::interrupt::Interruptible;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Read};
use std::time::Instant;

/// Where to show progress. All of it goes to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A bar that moves.
    Bar,
    /// A line when a step starts and one when it is done.
    Lines,
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
}

impl Progress {
    /// A bar if standard error is a terminal, else lines.
    #[must_use]
    pub fn for_stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::Bar } else { Self::Lines }
    }

    /// Says a sentence.
    pub fn say(self, sentence: &str) {
        if self != Self::Quiet {
            eprintln!("{sentence}");
        }
    }

    /// Starts a step of `bytes` bytes.
    #[must_use]
    pub fn step(self, name: &'static str, bytes: u64) -> Step {
        let bar = if self == Self::Bar { ProgressBar::new(bytes) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{msg:24} [{bar:30}] {bytes}/{total_bytes}, {eta} left");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(name);
        if self == Self::Lines {
            eprintln!("{name} …");
        }
        Step { mode: self, name, start: Instant::now(), bar }
    }
}

impl Step {
    /// Says that so many bytes more are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Counts what is read from `reader` as done. It ends with an error when the build is interrupted.
    pub fn reading<R: Read>(&self, reader: R) -> impl Read {
        Interruptible(self.bar.wrap_read(reader))
    }

    /// Ends the step. One that is dropped instead has failed; its bar goes away.
    pub fn done(self) {
        self.bar.finish_and_clear();
        let seconds = self.start.elapsed().as_secs_f64();
        if self.mode != Progress::Quiet {
            eprintln!("{}: {seconds:.1} s", self.name);
        }
    }
}
