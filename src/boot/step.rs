//! The steps of the boot: names, times, and a failure as a value.

use crate::boot::kernel::clock::{ClockId, microseconds};
use anyhow::{Error, Result};
use serde::Serialize;

/// The finished steps, in order.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Steps {
    done: Vec<StepTime>,
    /// The names of the steps that a person at a console chose to skip.
    #[serde(skip)]
    skipped: Vec<&'static str>,
}

/// A finished step.
#[derive(Debug, Serialize)]
struct StepTime {
    name: &'static str,
    /// The start, µs of `CLOCK_MONOTONIC`, which begins with the kernel.
    start: u64,
    /// The end, µs of the same clock.
    end: u64,
}

/// A failed step.
#[derive(Debug)]
pub struct Failed {
    /// Its name.
    pub step: &'static str,
    /// The reason.
    pub error: Error,
    /// Whether the boot can go on without this step.
    pub skippable: Skippable,
}

/// Whether the boot can go on without a failed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skippable {
    /// No: later steps need it.
    No,
    /// Yes, if a person at a console presses a key.
    ByKey,
    /// Yes, if a person at a console types it in words.
    InWords,
}

impl Steps {
    /// Runs a step that later steps need, and logs the time it takes.
    ///
    /// # Errors
    ///
    /// The error of the step.
    pub fn run<T>(&mut self, name: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T, Failed> {
        let start = microseconds(ClockId::CLOCK_MONOTONIC);
        let value = run().map_err(|error| Failed { step: name, error, skippable: Skippable::No })?;
        self.note(name, start);
        Ok(value)
    }

    fn note(&mut self, name: &'static str, start: u64) {
        let end = microseconds(ClockId::CLOCK_MONOTONIC);
        let duration = end.saturating_sub(start);
        log::info!("{name}: done in {}.{:03} ms", duration / 1000, duration % 1000);
        // Of several attempts the last one counts.
        self.done.retain(|step| step.name != name);
        self.done.push(StepTime { name, start, end });
    }

    /// Runs a step, unless a person chose to skip it.
    ///
    /// # Errors
    ///
    /// The error of the step.
    pub fn run_unless_skipped(
        &mut self,
        name: &'static str,
        skippable: Skippable,
        run: impl FnOnce() -> Result<()>,
    ) -> Result<(), Failed> {
        if self.is_skipped(name) {
            return Ok(());
        }
        self.run(name, run).map_err(|failed| Failed { skippable, ..failed })
    }

    // Apart from `run_unless_skipped`, which the compiler copies for each step.
    fn is_skipped(&self, name: &str) -> bool {
        let skipped = self.skipped.contains(&name);
        if skipped {
            log::warn!("{name}: skipped, as a person at a console chose");
        }
        skipped
    }

    /// Skips a step in all attempts from now on.
    pub fn skip(&mut self, name: &'static str) {
        self.skipped.push(name);
    }

    /// Leaves no step out any more: the cause of an earlier failure may be gone.
    pub fn skip_nothing(&mut self) {
        self.skipped.clear();
    }

    /// The start of the first step, µs of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.done.first().map_or(0, |step| step.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_step_that_failed_runs_again_until_somebody_goes_without_it() {
        let mut steps = Steps::default();
        let failed = steps.run_unless_skipped("files", Skippable::ByKey, || bail!("no room")).unwrap_err();
        assert_eq!((failed.step, failed.skippable), ("files", Skippable::ByKey));
        assert_eq!(steps.run("plan", || Ok(7)).unwrap(), 7);
        assert_eq!(steps.run("plan", || -> Result<()> { bail!("none") }).unwrap_err().skippable, Skippable::No);
        steps.skip("files");
        steps.run_unless_skipped("files", Skippable::ByKey, || bail!("no room")).unwrap();
        let names: Vec<_> = steps.done.iter().map(|step| step.name).collect();
        assert_eq!(names, ["plan"]);
        assert!(serde_json::to_value(&steps).unwrap().is_array());
    }
}
