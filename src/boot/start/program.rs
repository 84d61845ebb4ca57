//! Runs programs of the system. Their output goes to the log line by line, so that the log shows where a program hangs.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, pipe};
use std::process::Command;
use std::time::{Duration, Instant};

/// The number of lines of output in the error of a failed program.
const LAST_LINES: usize = 5;

/// The maximum length of a line, bytes. A longer line is logged in pieces, so that output without line ends cannot fill the memory.
const LONGEST: usize = 4096;

/// The capacity of a pipe, bytes (`man 7 pipe`). One read empties it.
const PIPE: usize = 1 << 16;

/// The time limit of a wait for output, after which the program's status is checked. A background process of the program may hold the
/// pipe open after the program ends.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The interval of the log lines that say which program is waited for.
const REMINDER: Duration = Duration::from_secs(30);

/// The time limit for a killed program to end. A program that waits for a device ends only after that wait.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// Runs a program. Its standard output and error go to the log, with `name` at the start of each line. It is killed if it runs longer
/// than `limit`.
///
/// # Errors
///
/// The program cannot be executed, fails, or is killed. The error has the last lines of its output.
pub fn run(name: &str, mut command: Command, limit: Duration) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (mut reader, writer) = pipe().context("making a pipe")?;
    command.stdout(writer.try_clone().context("duplicating a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| {
        format!(
            "running {program}; if the file exists, its interpreter is missing: pack the whole closure of the system"
        )
    })?;
    // The command holds the write end of the pipe. Without the drop, a read would never return 0.
    drop(command);

    let (start, mut reminder) = (Instant::now(), REMINDER);
    let mut output = ProgramOutput { name, line: Vec::new(), last: Vec::new() };
    let mut buffer = vec![0; PIPE];
    let status = loop {
        // Check the status before the read: if the program has ended, its whole output is in the pipe by now.
        let ended = child.try_wait().with_context(|| format!("waiting for {program}"))?;
        if poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&POLL_INTERVAL)).context("poll")? > 0 {
            match reader.read(&mut buffer).with_context(|| format!("reading from {program}"))? {
                0 => break child.wait().with_context(|| format!("waiting for {program}"))?,
                length => output.log(buffer.get(..length).unwrap_or_default()),
            }
        }
        if let Some(status) = ended {
            break status;
        }
        if start.elapsed() > reminder {
            log::info!(
                "Waiting for {program}: it runs for {} s now, and may run for {} s",
                reminder.as_secs(),
                limit.as_secs()
            );
            reminder += REMINDER;
        }
        if start.elapsed() > limit {
            child.kill().with_context(|| format!("killing {program}"))?;
            let killed = Instant::now();
            while killed.elapsed() < KILL_LIMIT && child.try_wait().is_ok_and(|status| status.is_none()) {
                std::thread::sleep(Duration::from_millis(10));
            }
            bail!("{program} did not end within {} s and was killed; {}", start.elapsed().as_secs(), output.end());
        }
    };
    let last_lines = output.end();
    if !status.success() {
        bail!("{program} failed ({status}); {last_lines}");
    }
    Ok(())
}

/// The output of a program, cut into lines.
struct ProgramOutput<'a> {
    name: &'a str,
    /// The current line, which has not ended yet.
    line: Vec<u8>,
    /// The last complete lines.
    last: Vec<String>,
}

impl ProgramOutput<'_> {
    /// Logs the lines that end in `bytes`, and pieces of lines that are too long.
    fn log(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() > LONGEST {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        log::info!("{}: {line}", self.name);
        if self.last.len() == LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
    }

    /// Logs the rest, and returns the last lines as the end of a message.
    fn end(mut self) -> String {
        self.end_line();
        match self.last.as_slice() {
            [] => "its output is empty".into(),
            last => format!("its last output: {}", last.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_an_output() {
        for (pieces, expected) in [
            (&["one\ntw", "o\n\n", "three"][..], "its last output: one; two; three"),
            (&["1\n2\n3\n4\n5\n6\n"], "its last output: 2; 3; 4; 5; 6"),
            (&["a\r\n"], "its last output: a"),
            (&[], "its output is empty"),
        ] {
            let mut output = ProgramOutput { name: "x", line: Vec::new(), last: Vec::new() };
            for piece in pieces {
                output.log(piece.as_bytes());
            }
            assert_eq!(output.end(), expected);
        }
        let mut output = ProgramOutput { name: "x", line: Vec::new(), last: Vec::new() };
        output.log(&[b'x'; LONGEST + 1]);
        assert!(output.line.is_empty());
    }

    #[test]
    fn programs_end_as_they_should() {
        const LONG: Duration = Duration::from_mins(1);
        let shell = |script: &str, limit| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            run("sh", command, limit).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(shell("echo well", LONG), Ok(()));
        // A background process holds the pipe open. The program's end counts, however much the background process writes.
        for left_behind in ["sleep 20", "while :; do echo noise; done"] {
            let start = Instant::now();
            assert_eq!(shell(&format!("timeout 20 sh -c '{left_behind}' & echo done"), LONG), Ok(()));
            assert!(start.elapsed() < Duration::from_secs(5), "{left_behind}");
        }
        assert_eq!(
            shell("echo one; echo two >&2; exit 3", LONG),
            Err("/bin/sh failed (exit status: 3); its last output: one; two".into())
        );
        let error = shell("echo wait; exec sleep 60", Duration::ZERO).unwrap_err();
        assert!(error.starts_with("/bin/sh did not end within 0 s and was killed; "), "{error}");
        assert!(run("none", Command::new("/no/such/program"), LONG).is_err());
    }
}
