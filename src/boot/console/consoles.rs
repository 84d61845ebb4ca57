//! The consoles. Stage 1 uses all consoles of the kernel, since the person may be at any of them.

use crate::boot::kernel::sys;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// The time limit for a text to be sent, for all consoles together. A serial line that is stopped by flow control must not stop the
/// machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A terminal that is a console of the kernel.
struct Console {
    /// The path of its device.
    path: String,
    file: File,
}

/// The consoles of the kernel (`console=`), in its order. The last one is the main console, `/dev/console`.
fn all() -> Vec<Console> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let consoles: Vec<_> = active.split_whitespace().filter_map(|name| Console::open(&device(name)).ok()).collect();
    if consoles.is_empty() { Console::open("/dev/console").into_iter().collect() } else { consoles }
}

/// Writes a text to every console.
pub fn say(text: &str) {
    send(all(), text);
}

/// Writes a text to the console of this path: an echo, for which no other console has to wait.
pub fn say_to(path: &str, text: &str) {
    send(Console::open(path).into_iter().collect(), text);
}

/// Writes a text to these consoles and waits until it is sent. A console that sends nothing within the limit loses its text: to close it
/// would wait for the text, by default 30 s (`closing_wait`, `man 8 setserial`).
fn send(consoles: Vec<Console>, text: &str) {
    let end = Instant::now() + TIMEOUT;
    let mut unfinished: Vec<_> = consoles.into_iter().map(|console| (console, text.as_bytes())).collect();
    loop {
        unfinished.retain_mut(|(console, rest)| !console.has_sent(rest));
        if unfinished.is_empty() {
            return;
        }
        if Instant::now() > end {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for (console, _) in unfinished {
        console.flush(FlushArg::TCOFLUSH);
        log::warn!("Writing to {}: waited {} s for it to send; its text is lost", console.path, TIMEOUT.as_secs());
    }
}

/// The device of a console. tty0 stands for the virtual terminal in the foreground and cannot be the controlling terminal of a shell. In
/// stage 1 the foreground terminal is tty1.
fn device(name: &str) -> String {
    format!("/dev/{}", if name == "tty0" { "tty1" } else { name })
}

impl Console {
    fn open(path: &str) -> Result<Self> {
        let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        Ok(Self { path: path.into(), file: file.with_context(|| format!("opening {path}"))? })
    }

    /// Writes as much of `rest` as the console takes now. Returns whether everything is sent, or cannot be.
    fn has_sent(&self, rest: &mut &[u8]) -> bool {
        match (&self.file).write(rest) {
            Ok(length) => *rest = rest.get(length..).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return false,
            Err(error) => {
                log::warn!("Writing to {}: {error}", self.path);
                return true;
            }
        }
        // Some terminals cannot tell what is left: to them it does not matter.
        rest.is_empty() && sys::unsent(&self.file).unwrap_or(0) == 0
    }

    /// Discards pending input or output. Unlike `TCSAFLUSH` of tcsetattr(3) it does not wait for the output.
    fn flush(&self, which: FlushArg) {
        if let Err(errno) = tcflush(&self.file, which) {
            log::warn!("Discarding what is pending on {}: {errno}", self.path);
        }
    }
}

/// The keyboards of all consoles. Each key can be read at once, not only after Enter. Drop restores their settings.
pub struct Keyboards(Vec<(Console, Option<Termios>)>);

impl Keyboards {
    /// Listens on every console. Input from before is discarded.
    #[must_use]
    pub fn listen() -> Self {
        let with_settings = |console: Console| {
            let before = tcgetattr(&console.file).ok();
            if let Some(mut settings) = before.clone() {
                settings.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
                if let Err(errno) = tcsetattr(&console.file, SetArg::TCSANOW, &settings) {
                    log::warn!("Preparing {} for single keys: {errno}; press Enter after each key", console.path);
                }
                console.flush(FlushArg::TCIFLUSH);
            }
            (console, before)
        };
        Self(all().into_iter().map(with_settings).collect())
    }

    /// The next key, and the device of the console where it was pressed. `None` if no key was pressed within `limit`.
    pub fn key(&mut self, limit: Duration) -> Option<(u8, String)> {
        let ready = {
            let mut files: Vec<_> =
                self.0.iter().map(|(console, _)| PollFd::new(console.file.as_fd(), PollFlags::POLLIN)).collect();
            wait(&mut files, limit).ok()?;
            files.iter().position(|file| file.any() == Some(true))?
        };
        let mut key = [0];
        let (console, _) = self.0.get(ready)?;
        match (&console.file).read(&mut key) {
            Ok(1) => Some((key[0], console.path.clone())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            // The terminal hung up. poll(2) would report it as ready for ever and keep the processor busy.
            _ => {
                self.0.remove(ready);
                None
            }
        }
    }

    /// Whether no console is left to listen on: each one hung up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Discards pending input, such as the rest of the bytes that an arrow key sends.
    pub fn flush(&self) {
        for (console, _) in &self.0 {
            console.flush(FlushArg::TCIFLUSH);
        }
    }
}

impl Drop for Keyboards {
    fn drop(&mut self) {
        for (console, before) in &self.0 {
            if let Some(Err(errno)) = before.as_ref().map(|before| tcsetattr(&console.file, SetArg::TCSANOW, before)) {
                log::warn!("Restoring the settings of {}: {errno}", console.path);
            }
        }
    }
}

/// Waits until one of the files is ready or the time limit is over.
fn wait(files: &mut [PollFd<'_>], limit: Duration) -> nix::Result<()> {
    match poll(files, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
