//! The kernel's clocks.

pub use nix::time::ClockId;
use nix::time::clock_gettime;

/// The time of a clock, µs.
#[must_use]
pub fn microseconds(clock: ClockId) -> u64 {
    // By the C library, which std uses, too: rustix has code of its own for it, of 2 kB.
    clock_gettime(clock).map_or(0, |now| {
        // Neither field is negative: the clocks begin with the kernel, or with 1970.
        now.tv_sec().unsigned_abs() * 1_000_000 + now.tv_nsec().unsigned_abs() / 1000
    })
}
