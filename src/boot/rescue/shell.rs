//! The rescue shell, if the ramdisk has one.

use crate::boot::kernel::sys;
use crate::boot::start::program;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::wait;
use rustix::fs::{OFlags, fcntl_setfl};
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The path of the shell in the ramdisk.
const SHELL: &str = "/bin/sh";

/// The path of busybox. If it exists, it first has to install links for its other programs.
const BUSYBOX: &str = "/bin/busybox";

/// The time limit for the installation of the links.
const INSTALL_LIMIT: Duration = Duration::from_secs(30);

/// Whether the ramdisk has a shell.
#[must_use]
pub fn exists() -> bool {
    Path::new(SHELL).exists()
}

/// Runs a shell on a terminal until it ends. In the meantime it reaps other processes, as process 1 has to.
///
/// The shell is a child in its own session. So it has job control, and a person can leave it: if process 1 itself ended, the kernel would
/// panic.
///
/// # Errors
///
/// The terminal cannot be opened, or the shell cannot be executed.
pub fn run(terminal: &str) -> Result<()> {
    let mut command = prepare(terminal)?;
    sys::in_own_session(&mut command);
    let child = command.spawn().with_context(|| format!("running {SHELL}"))?;
    loop {
        match wait() {
            Ok(ended) if ended.pid().is_some_and(|pid| pid.as_raw().unsigned_abs() == child.id()) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for the shell"),
        }
    }
}

/// Executes the shell instead of firn-init. The shell is process 1 then and can, for example, execute another init.
///
/// # Errors
///
/// The terminal cannot be opened, or the shell cannot be executed. It returns only with an error.
pub fn replace_this_process(terminal: &str) -> Result<Infallible> {
    let mut command = prepare(terminal)?;
    sys::in_own_session(&mut command);
    Err(command.exec()).with_context(|| format!("executing {SHELL}"))
}

fn prepare(terminal: &str) -> Result<Command> {
    if Path::new(BUSYBOX).exists() {
        let mut install = Command::new(BUSYBOX);
        install.args(["--install", "-s", "/bin"]);
        // Some of its programs may have another file in their place.
        if let Err(error) = program::run("busybox", install, INSTALL_LIMIT) {
            log::warn!("{error:#}");
        }
    }
    // Non-blocking, or else open(2) waits for the carrier of a modem line. Then blocking: a shell would take EAGAIN for the end of its
    // input.
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(terminal);
    let file = file.with_context(|| format!("opening {terminal}"))?;
    fcntl_setfl(&file, OFlags::empty()).with_context(|| format!("preparing {terminal}"))?;
    let mut command = Command::new(SHELL);
    command
        .env_clear()
        .envs([("HOME", "/"), ("PATH", "/bin:/sbin:/usr/bin:/usr/sbin"), ("PS1", "firn-init:\\w# ")])
        .env("TERM", terminal_type(terminal))
        .current_dir("/")
        .stdin(file.try_clone()?)
        .stdout(file.try_clone()?)
        .stderr(file);
    Ok(command)
}

/// The type of a terminal, as systemd chooses it (`default_term_for_tty`, src/basic/terminal-util.c): `linux` for the virtual terminals of
/// a screen, which are `tty` and a number, and a type that serial lines, consoles of hypervisors and others understand.
fn terminal_type(terminal: &str) -> &'static str {
    let number = terminal.strip_prefix("/dev/tty").unwrap_or("none");
    if number.bytes().all(|byte| byte.is_ascii_digit()) { "linux" } else { "vt220" }
}

#[cfg(test)]
mod tests {
    use super::terminal_type;

    #[test]
    fn b_10_only_screens_are_of_the_type_linux() {
        for (terminals, expected) in [
            (&["/dev/tty0", "/dev/tty1", "/dev/tty63", "/dev/tty"][..], "linux"),
            (&["/dev/ttyS0", "/dev/ttyAMA0", "/dev/hvc0", "/dev/ttyUSB0", "/dev/xvc0", "/dev/console"], "vt220"),
        ] {
            for terminal in terminals {
                assert_eq!(terminal_type(terminal), expected, "{terminal}");
            }
        }
    }
}
