//! Programs of the system that stage 1 runs: what they write goes to the log, line by line, so that one that hangs shows where.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, pipe};
use std::process::Command;
use std::time::{Duration, Instant};

/// How many lines of its output are in the error when it fails.
const LAST_LINES: usize = 5;

/// Bytes of a line that is logged before it ends: what never ends one is not to fill the memory.
const LONGEST: usize = 4096;

/// What a pipe holds, bytes (`man 7 pipe`): one read takes all of it.
const PIPE: usize = 1 << 16;

/// How long to wait for output before looking whether the program still runs. Not for ever: a process that it left behind may
/// hold the pipe open.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Runs a program that is called `name` in the log, with both of its outputs going there. One that runs for longer than
/// `limit` is killed.
///
/// # Errors
///
/// A program that cannot be run, fails, or is killed, with the last lines that it wrote.
pub fn run(name: &str, mut command: Command, limit: Option<Duration>) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (mut reader, writer) = pipe().context("making a pipe")?;
    command.stdout(writer.try_clone().context("duplicating a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| {
        format!("running {program}; if it is there, its interpreter is missing: pack the whole closure of the system")
    })?;
    // It holds the other end of the pipe, which would not end then.
    drop(command);

    let start = Instant::now();
    let mut output = Output { name, line: Vec::new(), last: Vec::new() };
    let mut buffer = vec![0; PIPE];
    let status = loop {
        // Asked before the pipe is: what the program wrote is in there by then.
        let ended = child.try_wait().with_context(|| format!("waiting for {program}"))?;
        if poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&PATIENCE)).context("poll")? > 0 {
            match reader.read(&mut buffer).with_context(|| format!("reading from {program}"))? {
                0 => break child.wait().with_context(|| format!("waiting for {program}"))?,
                length => output.log(buffer.get(..length).unwrap_or_default()),
            }
        }
        if let Some(status) = ended {
            break status;
        }
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("killing {program}"))?;
            bail!("{program} was killed after {} s; {}", start.elapsed().as_secs(), output.end());
        }
    };
    let said = output.end();
    if !status.success() {
        bail!("{program} failed ({status}); {said}");
    }
    Ok(())
}

/// What a program writes, cut into lines.
struct Output<'a> {
    name: &'a str,
    /// A line that has not ended yet.
    line: Vec<u8>,
    /// The last lines before it.
    last: Vec<String>,
}

impl Output<'_> {
    /// Logs the lines that end in `bytes`, and one that is longer than any should be.
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

    /// Half a sentence on the last lines of all.
    fn end(mut self) -> String {
        self.end_line();
        match self.last.as_slice() {
            [] => "it wrote nothing".into(),
            last => format!("its last words: {}", last.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_an_output() {
        for (pieces, expected) in [
            (&["one\ntw", "o\n\n", "three"][..], "its last words: one; two; three"),
            (&["1\n2\n3\n4\n5\n6\n"], "its last words: 2; 3; 4; 5; 6"),
            (&["a\r\n"], "its last words: a"),
            (&[], "it wrote nothing"),
        ] {
            let mut output = Output { name: "x", line: Vec::new(), last: Vec::new() };
            for piece in pieces {
                output.log(piece.as_bytes());
            }
            assert_eq!(output.end(), expected);
        }
        let mut output = Output { name: "x", line: Vec::new(), last: Vec::new() };
        output.log(&[b'x'; LONGEST + 1]);
        assert!(output.line.is_empty());
    }

    #[test]
    fn programs_end_as_they_should() {
        let shell = |script: &str, limit| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            run("sh", command, limit).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(shell("echo well", None), Ok(()));
        // What it leaves behind holds the pipe, and nobody waits for it, however much it says.
        for left_behind in ["sleep 20", "while :; do echo noise; done"] {
            let start = Instant::now();
            assert_eq!(shell(&format!("timeout 20 sh -c '{left_behind}' & echo done"), None), Ok(()));
            assert!(start.elapsed() < Duration::from_secs(5), "{left_behind}");
        }
        assert_eq!(
            shell("echo one; echo two >&2; exit 3", None),
            Err("/bin/sh failed (exit status: 3); its last words: one; two".into())
        );
        let error = shell("echo wait; exec sleep 60", Some(Duration::ZERO)).unwrap_err();
        assert!(error.starts_with("/bin/sh was killed after 0 s; "), "{error}");
        assert!(run("none", Command::new("/no/such/program"), None).is_err());
    }
}
