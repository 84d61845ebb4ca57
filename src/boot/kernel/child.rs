//! Work in a child process. A system call on a dying disk may never return, and no signal ends it: then only the child hangs.

use crate::boot::kernel::sys;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, PipeReader, Read, Write};
use std::time::{Duration, Instant};

/// As many bytes as an answer may have: a pipe takes them at once (`PIPE_BUF`, `man 7 pipe`).
const ANSWER: usize = 4096;

/// The time between two lines of the log about a wait.
pub const LINES: Duration = Duration::from_secs(10);

/// Separates the parts of an answer. No error and no label contains it.
pub const SEPARATOR: char = '\0';

/// A child process that works on an answer. It is killed when this value goes.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pipe: PipeReader,
    start: Instant,
}

impl Child {
    /// Starts a child. `work` returns its answer, which may not be empty.
    ///
    /// # Errors
    ///
    /// An error of pipe(2) or fork(2).
    pub fn start(work: &dyn Fn() -> String) -> Result<Self> {
        let (pipe, mut answer) = io::pipe().context("making a pipe")?;
        let pid = sys::fork(&mut || {
            let text = work();
            // Without a reader the answer is of no use.
            drop(answer.write_all(text.as_bytes().get(..ANSWER).unwrap_or(text.as_bytes())));
        })
        .context("starting a child process")?;
        Ok(Self { pid, pipe, start: Instant::now() })
    }

    /// The answer, if there is one within this time.
    ///
    /// # Errors
    ///
    /// The child ended without an answer.
    pub fn answer(&mut self, limit: Duration) -> Result<Option<String>> {
        let mut pipe = [PollFd::new(&self.pipe, PollFlags::IN)];
        let limit = Timespec::try_from(limit).context("waiting for a child process")?;
        // A signal is no reason to fail: the caller waits again.
        if poll(&mut pipe, Some(&limit)).unwrap_or(0) == 0 {
            return Ok(None);
        }
        let mut bytes = [0; ANSWER];
        let length = self.pipe.read(&mut bytes).context("reading the answer of a child process")?;
        let answer = bytes.get(..length).filter(|answer| !answer.is_empty()).context("its process was killed")?;
        Ok(Some(String::from_utf8_lossy(answer).into_owned()))
    }

    /// The time since its start.
    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended. One that hangs ends when its system call does, and is reaped before the hand-over.
        let killed = kill(self.pid, Signal::SIGKILL).and(waitpid(self.pid, Some(WaitPidFlag::WNOHANG)));
        killed.map_or_else(|errno| log::info!("Killing the process {}: {errno}", self.pid), drop);
    }
}

/// Runs `work` in a child until it ends or the time `end` is reached. `name` is for messages, such as `mounting /dev/vda`.
///
/// # Errors
///
/// The error of `work`, or the child takes too long.
pub fn run(name: &str, end: Instant, work: &dyn Fn() -> Result<()>) -> Result<()> {
    let mut child = Child::start(&|| work().map_or_else(|error| format!("{error:#}"), |()| SEPARATOR.into()))?;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        if let Some(answer) = child.answer(rest.min(LINES))? {
            ensure!(answer.starts_with(SEPARATOR), answer);
            return Ok(());
        }
        let (seconds, left) = (child.age().as_secs(), end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            bail!("{name} did not end within {seconds} s: a disk does not answer; the kernel log may say why (dmesg)");
        }
        log::info!("Still {name}, for {seconds} s; waiting for at most {} s more", left.as_secs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;
    use std::thread::sleep;

    #[test]
    fn a_6_work_that_hangs_ends_at_its_limit() {
        let start = Instant::now();
        let hang = || {
            sleep(Duration::from_mins(1));
            Ok(())
        };
        let error = run("mounting /dev/sdb", start + Duration::from_millis(300), &hang).unwrap_err().to_string();
        assert!(error.starts_with("mounting /dev/sdb did not end within 0 s: a disk does not answer"), "{error}");
        assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&start.elapsed()));
    }

    #[test]
    fn the_result_of_a_child_is_that_of_its_work() {
        let end = Instant::now() + Duration::from_secs(5);
        run("nothing", end, &|| Ok(())).unwrap();
        let error = run("it", end, &|| Err(anyhow!("the cause").context("the reason"))).unwrap_err();
        assert_eq!(format!("{error:#}"), "the reason: the cause");
        let killed = run("it", end, &|| std::process::abort()).unwrap_err();
        assert_eq!(killed.to_string(), "its process was killed");
        let long = run("it", end, &|| Err(anyhow!("x".repeat(2 * ANSWER)))).unwrap_err();
        assert_eq!(long.to_string().len(), ANSWER);
    }
}
