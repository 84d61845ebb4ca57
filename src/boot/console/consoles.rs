//! The consoles. Stage 1 uses all consoles of the kernel, since the person may be at any of them.

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// The time limit for writing a text to a console. A serial line that is stopped by flow control must not stop the machine.
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
    for console in all() {
        console.say(text);
    }
}

/// Writes a text to the console of this path: an echo, for which no other console has to wait.
pub fn say_to(path: &str, text: &str) {
    if let Ok(console) = Console::open(path) {
        console.say(text);
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

    fn say(&self, text: &str) {
        if let Err(error) = self.write(text) {
            log::warn!("Writing to {}: {error:#}", self.path);
        }
    }

    fn write(&self, text: &str) -> Result<()> {
        let (mut rest, end) = (text.as_bytes(), Instant::now() + TIMEOUT);
        while !rest.is_empty() {
            match (&self.file).write(rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    anyhow::ensure!(!left.is_zero(), "it accepts no more output");
                    wait(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], left)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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
                if let Err(errno) = tcsetattr(&console.file, SetArg::TCSAFLUSH, &settings) {
                    log::warn!("Preparing {} for single keys: {errno}; press Enter after each key", console.path);
                }
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
            if let Err(errno) = tcflush(&console.file, FlushArg::TCIFLUSH) {
                log::warn!("Discarding the pending input of {}: {errno}", console.path);
            }
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
