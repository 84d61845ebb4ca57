//! The kernel's clocks.

use rustix::time::{ClockId, clock_gettime};

/// The time of a clock, µs.
#[must_use]
pub fn microseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Neither field is negative: the clocks begin with the kernel, or with 1970.
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}
