//! Long-running tools of the build machine: their last lines go into the error, and Ctrl-C ends them.

use crate::host::interrupt;
use anyhow::{Context, Error, Result};
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Runs a tool. Each line of its standard output goes to `line`, and the number of bytes that it has read so far to `read`. `advice`
/// says how to install it.
///
/// # Errors
///
/// A tool that is missing, that fails, or that was interrupted.
pub fn run(
    command: &mut Command,
    advice: &str,
    mut line: impl FnMut(&str) + Send,
    read: impl FnMut(u64),
) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| cannot_run(error, &name, advice))?;
    let stdout = child.stdout.take().context("a child without standard output")?;
    let mut stderr = child.stderr.take().context("a child without standard error")?;
    // Both pipes are read at the same time: a tool blocks when one is full.
    let (status, complaints) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
            lines.for_each(|text| line(&String::from_utf8_lossy(&text)));
        });
        let complaints = scope.spawn(move || {
            let mut text = Vec::new();
            // The text before an error is better than nothing.
            drop(stderr.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        });
        (wait(&mut child, read), complaints.join().unwrap_or_default())
    });
    let status = status.with_context(|| format!("waiting for {name}"))?;
    if !status.success() {
        return Err(failure(format!("{name} failed ({status}): {}", last_lines(&complaints))));
    }
    Ok(())
}

/// The version of a tool: the first line that it prints when it is asked for it. mkfs.erofs 1.5 prints it and fails.
///
/// # Errors
///
/// A tool that is missing.
pub fn version(command: &mut Command, advice: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| cannot_run(error, &name, advice))?;
    let printed = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok(printed.iter().flat_map(|text| text.lines()).next().unwrap_or_default().into())
}

fn cannot_run(error: io::Error, name: &str, advice: &str) -> Error {
    let missing = error.kind() == ErrorKind::NotFound;
    Error::new(error).context(if missing {
        format!("{name}, which firn needs for store images, is not on the PATH; {advice}")
    } else {
        format!("running {name}")
    })
}

/// The error for a failed tool; its cause is a full file system if the message of the tool says so.
#[must_use]
pub fn failure(message: String) -> Error {
    let full = ["No space left", "disk is full"].iter().any(|text| message.contains(text));
    if full { Error::new(io::Error::from(ErrorKind::StorageFull)).context(message) } else { Error::msg(message) }
}

/// Waits for the end of a child, and kills it when this process is asked to end.
fn wait(child: &mut Child, mut read: impl FnMut(u64)) -> io::Result<ExitStatus> {
    loop {
        // A kernel without these counters (CONFIG_TASK_IO_ACCOUNTING) reports no progress.
        let counters = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap_or_default();
        let bytes = counters.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
        bytes.into_iter().for_each(&mut read);
        if let Some(status) = child.try_wait()? {
            // A signal of the terminal reaches the child, too.
            interrupt::check()?;
            return Ok(status);
        }
        if let Err(interrupted) = interrupt::check() {
            child.kill()?;
            child.wait()?;
            return Err(interrupted);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The last lines of a tool's errors, as one line, without the usage text that it prints after a wrong option.
fn last_lines(complaints: &str) -> String {
    let reason =
        ["SYNTAX:", "usage:"].into_iter().fold(complaints, |text, manual| text.split(manual).next().unwrap_or(text));
    let lines: Vec<_> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool() {
        let error = run(&mut Command::new("no-such-tool"), "install it", |_| {}, |_| {}).unwrap_err().to_string();
        assert_eq!(error, "no-such-tool, which firn needs for store images, is not on the PATH; install it");
    }

    #[test]
    fn the_usage_text_is_left_out() {
        for (complaints, expected) in [
            ("mksquashfs: invalid option\n\nSYNTAX:mksquashfs source1\nmore\n", "mksquashfs: invalid option"),
            ("mkfs.erofs: invalid option -- 'Q'\nusage: [options] FILE\nmore\n", "mkfs.erofs: invalid option -- 'Q'"),
            (
                "\nWrite failed because No space left\nFATAL ERROR: Failed\n",
                "Write failed because No space left; FATAL ERROR: Failed",
            ),
            ("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "2; 3; 4; 5; 6; 7; 8; 9"),
            ("", ""),
        ] {
            assert_eq!(last_lines(complaints), expected);
        }
    }
}
