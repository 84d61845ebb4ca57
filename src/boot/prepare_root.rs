//! `prepare-root`: the stage-2 script of a system made for a systemd stage 1, which activates it and returns.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, pipe};
use std::process::{Command, Stdio};

/// How many lines of its output are in the error when it fails.
const LAST_LINES: usize = 5;

/// Bytes of a line that is logged before it ends: what never ends one is not to fill the memory.
const LONGEST: usize = 4096;

/// How long to wait for output before looking whether the script still runs. Not for ever: a process that it left behind may
/// hold the pipe open.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Runs the `prepare-root` of a toplevel below the current root, as NixOS' own initrd does (nixpkgs,
/// `nixos/modules/system/boot/systemd/initrd.nix`). What it writes goes to the log line by line, so that one that hangs shows
/// where.
///
/// # Errors
///
/// A script that cannot be run or fails, with the last lines that it wrote.
pub fn run(toplevel: &str) -> Result<()> {
    let program = format!("{toplevel}/prepare-root");
    log::info!("Running {program}");
    let (mut reader, writer) = pipe().context("making a pipe")?;
    let mut command = Command::new(&program);
    command.env_clear().env("IN_NIXOS_SYSTEMD_STAGE1", "true").stdin(Stdio::null());
    command.stdout(writer.try_clone().context("duplicating a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| {
        format!("running {program}; if it is there, its interpreter is missing: pack the whole closure of the system")
    })?;
    // It holds the other end of the pipe, which would not end then.
    drop(command);

    let mut output = Output::default();
    let mut buffer = [0; 4096];
    let status = loop {
        // Asked before the pipe is: nothing that the script wrote comes later.
        let ended = child.try_wait().with_context(|| format!("waiting for {program}"))?;
        let ready = poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&PATIENCE)).context("poll")?;
        match (ready, ended) {
            (0, Some(status)) => break status,
            (0, None) => {}
            _ => match reader.read(&mut buffer).with_context(|| format!("reading from {program}"))? {
                0 => break child.wait().with_context(|| format!("waiting for {program}"))?,
                length => output.log(buffer.get(..length).unwrap_or_default()),
            },
        }
    };
    let last = output.end();
    if !status.success() {
        let said =
            if last.is_empty() { "it wrote nothing".into() } else { format!("its last words: {}", last.join("; ")) };
        bail!("{program} failed ({status}); {said}");
    }
    Ok(())
}

/// What a program writes, cut into lines.
#[derive(Default)]
struct Output {
    /// A line that has not ended yet.
    line: Vec<u8>,
    /// The last lines before it.
    last: Vec<String>,
}

impl Output {
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
        log::info!("prepare-root: {line}");
        if self.last.len() == LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
    }

    /// The last lines of all.
    fn end(mut self) -> Vec<String> {
        self.end_line();
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_an_output() {
        for (pieces, expected) in [
            (&["one\ntw", "o\n\n", "three"][..], &["one", "two", "three"][..]),
            (&["1\n2\n3\n4\n5\n6\n"], &["2", "3", "4", "5", "6"]),
            (&["a\r\n"], &["a"]),
            (&[], &[]),
        ] {
            let mut output = Output::default();
            for piece in pieces {
                output.log(piece.as_bytes());
            }
            assert_eq!(output.end(), expected);
        }
        let mut output = Output::default();
        output.log(&[b'x'; LONGEST + 1]);
        assert!(output.line.is_empty());
    }
}
