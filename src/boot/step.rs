//! A step of the boot: what it is called, how long it took, which one failed.

use crate::boot::rescue::menu;
use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// The steps that are done, in order.
#[derive(Debug, Default, Serialize)]
pub struct Steps(Vec<Step>);

/// A step that is done.
#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    /// µs of `CLOCK_MONOTONIC`, which begins with the kernel.
    start: u64,
    end: u64,
}

impl Steps {
    /// Runs one step of the boot, logs how long it took, and puts its name before whatever goes wrong in it.
    ///
    /// # Errors
    ///
    /// Those of the step.
    pub fn run<T>(&mut self, name: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = microseconds(ClockId::Monotonic);
        let value = run().context(name)?;
        let end = microseconds(ClockId::Monotonic);
        let took = end.saturating_sub(start);
        log::info!("{name}: done in {}.{:03} ms", took / 1000, took % 1000);
        self.0.push(Step { name, start, end });
        Ok(value)
    }

    /// The same for a step that others can do without: when it fails, somebody at a console may choose to.
    pub fn run_or_skip(&mut self, name: &'static str, run: impl FnOnce() -> Result<()>) {
        if let Err(error) = self.run(name, run) {
            menu::fail(&error, Some("go on without this step"));
        }
    }

    /// When the first one began, µs of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.0.first().map_or(0, |step| step.start)
    }
}

/// The time of a clock, µs.
pub fn microseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Neither is ever negative on a clock that begins with the kernel, or with 1970.
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}
