//! The consoles: all that the kernel writes to, since nobody knows at which one somebody stands.

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, LocalFlags, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// How long a console may take for a text. A line that somebody holds up must not hold up the machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// A terminal that is a console.
struct Console {
    /// Its device.
    path: String,
    file: File,
}

/// The kernel's consoles (`console=`), in its order: the last one is the main one, `/dev/console`.
fn all() -> Vec<Console> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let consoles: Vec<_> = active.split_whitespace().filter_map(|name| Console::open(&device(name)).ok()).collect();
    if consoles.is_empty() { Console::open("/dev/console").into_iter().collect() } else { consoles }
}

/// Writes a text to every console.
pub fn say(text: &str) {
    for console in all() {
        if let Err(error) = console.write(text) {
            log::warn!("Writing to {}: {error:#}", console.path);
        }
    }
}

/// tty0 is whichever virtual terminal is in front, and that cannot control a session. At this time it is the first one.
fn device(name: &str) -> String {
    format!("/dev/{}", if name == "tty0" { "tty1" } else { name })
}

impl Console {
    fn open(path: &str) -> Result<Self> {
        let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        Ok(Self { path: path.into(), file: file.with_context(|| format!("opening {path}"))? })
    }

    fn write(&self, text: &str) -> Result<()> {
        let (mut rest, end) = (text.as_bytes(), Instant::now() + PATIENCE);
        while !rest.is_empty() {
            match (&self.file).write(rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    anyhow::ensure!(!left.is_zero(), "it does not take any more");
                    wait(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], left)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The keyboards of all consoles: each key is there at once and not only after Enter. Dropped, they are as they were.
pub struct Keyboards(Vec<(Console, Option<Termios>)>);

impl Keyboards {
    /// Listens on every console. What was typed before is thrown away.
    #[must_use]
    pub fn listen() -> Self {
        let with_settings = |console: Console| {
            let before = tcgetattr(&console.file).ok();
            if let Some(mut settings) = before.clone() {
                settings.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
                if let Err(errno) = tcsetattr(&console.file, SetArg::TCSAFLUSH, &settings) {
                    log::warn!("Preparing {} for single keys: {errno}", console.path);
                }
            }
            (console, before)
        };
        Self(all().into_iter().map(with_settings).collect())
    }

    /// The next key, and the device of the console where it was pressed; none if there was none in that time.
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
            // Hung up: it would be ready for ever, and the processor busy with asking it.
            _ => {
                self.0.remove(ready);
                None
            }
        }
    }

    /// Throws away what is typed already, such as the rest of what an arrow key sends.
    pub fn flush(&self) {
        for (console, _) in &self.0 {
            if let Err(errno) = tcflush(&console.file, FlushArg::TCIFLUSH) {
                log::warn!("Flushing {}: {errno}", console.path);
            }
        }
    }
}

impl Drop for Keyboards {
    fn drop(&mut self) {
        for (console, before) in &self.0 {
            if let Some(Err(errno)) = before.as_ref().map(|before| tcsetattr(&console.file, SetArg::TCSANOW, before)) {
                log::warn!("Putting the settings of {} back: {errno}", console.path);
            }
        }
    }
}

/// Waits until one of the files is ready, or the time is over.
fn wait(files: &mut [PollFd<'_>], limit: Duration) -> nix::Result<()> {
    match poll(files, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
