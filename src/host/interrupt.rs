//! Ctrl-C and SIGTERM: an interrupted build ends like a failed one, and deletes its temporary files.

use signal_hook::consts::TERM_SIGNALS;
use signal_hook::flag;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Catches the signals that ask this process to end. A second signal ends it at once.
///
/// # Errors
///
/// A signal that cannot be caught.
pub fn listen() -> io::Result<()> {
    for signal in TERM_SIGNALS {
        flag::register_conditional_default(*signal, INTERRUPTED.clone())?;
        flag::register(*signal, INTERRUPTED.clone())?;
    }
    Ok(())
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
