//! A step of the boot: what it is called, how long it took, which one failed.

use anyhow::{Context, Result};
use std::time::Instant;

/// Runs one step of the boot, logs how long it took, and puts its name before whatever goes wrong in it.
///
/// # Errors
///
/// Those of the step.
pub fn step<T>(name: &'static str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let value = run().context(name)?;
    log::info!("{name}: done in {:.3} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(value)
}
