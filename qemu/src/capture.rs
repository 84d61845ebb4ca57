//! Runs a machine to its end and keeps its output.

use crate::accel::Accel;
use crate::arguments::{QEMU, Serial, arguments};
use crate::command;
use crate::machine::Machine;
use crate::outcome::{Exit, Outcome};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;
use tempfile::NamedTempFile;

/// The exit status of timeout(1) at the time limit: after SIGTERM, and after SIGKILL.
const TIMED_OUT: [i32; 2] = [124, 128 + 9];

/// Runs the machine until it ends or its time limit is reached. Prints the QEMU command on standard error.
///
/// # Errors
///
/// No QEMU, a QEMU that fails, or a guest without any output.
pub(crate) fn capture(machine: &Machine, accel: Accel) -> Result<Outcome> {
    let console = temporary_file()?;
    let report = temporary_file()?;
    let errors = temporary_file()?;

    // Standard output, which is the console, is a file: a pipe could make the guest wait. A person who repeats the command sees
    // the console on the terminal.
    let mut qemu = Command::new(QEMU);
    qemu.args(arguments(machine, accel, Serial::Report(report.path())));
    command::print(&qemu);

    // timeout(1) keeps the time instead of this process: QEMU then also ends in time if this process is killed. With --foreground an
    // interrupt from the terminal also reaches QEMU.
    let child = Command::new("timeout")
        .args(["--foreground", "--kill-after=5", &machine.time_limit.as_secs_f64().to_string(), QEMU])
        .args(qemu.get_args())
        .stdin(Stdio::piped())
        .stdout(console.reopen()?)
        .stderr(errors.reopen()?)
        .spawn()
        .context("running timeout(1) of coreutils")?;
    let status = follow(child, console.reopen()?, machine.show, &machine.dialogue)?;

    let console = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
    let report = fs::read(&report)?;
    let exit = match status.code() {
        Some(0) => Exit::Ended,
        Some(code) if TIMED_OUT.contains(&code) => Exit::TimedOut,
        _ => bail!(
            "{}: {QEMU} failed ({status}): {}",
            if console.is_empty() { "the machine did not start" } else { "the machine broke down" },
            fs::read_to_string(&errors)?.trim()
        ),
    };
    if console.is_empty() && report.is_empty() {
        bail!(
            "the machine did not start: its serial ports had no output before it {}; is {} a kernel for x86-64 with a serial \
             console?",
            match exit {
                Exit::Ended => "ended",
                Exit::TimedOut => "reached its time limit",
            },
            machine.kernel.display()
        );
    }
    Ok(Outcome { console, report, exit })
}

fn temporary_file() -> Result<NamedTempFile> {
    NamedTempFile::new().context("making a temporary file for the output of the machine")
}

/// Waits for the end of `child`, shows the console if `show` is set, and types the input of the dialogue.
fn follow(
    mut child: Child,
    mut console: File,
    mut show: bool,
    mut dialogue: &[(String, String)],
) -> io::Result<ExitStatus> {
    let mut keyboard = child.stdin.take();
    let mut unanswered = Vec::new();
    loop {
        let status = child.try_wait()?;
        let before = unanswered.len();
        console.read_to_end(&mut unanswered)?;
        // The machine runs on if the reader of standard output ends (`| head`).
        show = show && io::stdout().write_all(&unanswered[before..]).and_then(|()| io::stdout().flush()).is_ok();
        if let ([(text, keys), rest @ ..], Some(keyboard)) = (dialogue, &mut keyboard)
            && let Some(found) = unanswered.windows(text.len()).position(|window| window == text.as_bytes())
        {
            unanswered.drain(..found + text.len());
            dialogue = rest;
            // A machine that has ended reads no input.
            keyboard.write_all(keys.as_bytes()).or_else(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error),
            })?;
        }
        match status {
            Some(status) => return Ok(status),
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
}
