//! Ctrl-C, SIGTERM and SIGHUP: an interrupted build ends like a failed one, and deletes its temporary files.

use signal_hook::consts::{SIGHUP, TERM_SIGNALS};
use signal_hook::flag;
use std::fs;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Catches the signals that ask this process to end. A second signal ends it at once. The end of a terminal (SIGHUP) is such a
/// signal, except after nohup(1).
///
/// # Errors
///
/// A signal that cannot be caught.
pub fn listen() -> io::Result<()> {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    for signal in TERM_SIGNALS.iter().copied().chain(hangup) {
        flag::register_conditional_default(signal, INTERRUPTED.clone())?;
        flag::register(signal, INTERRUPTED.clone())?;
    }
    Ok(())
}

/// Whether this process was started with a signal ignored (`proc_pid_status(5)`). Without /proc it counts as not ignored.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Returns an error if this process was asked to end.
///
/// # Errors
///
/// "interrupted".
pub fn check() -> io::Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(io::Error::other("interrupted")) } else { Ok(()) }
}

/// A reader that fails as soon as this process was asked to end.
pub struct Interruptible<R>(pub R);

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check()?;
        self.0.read(buffer)
    }
}
