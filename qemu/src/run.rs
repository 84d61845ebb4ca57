//! Runs a machine: for a program, which reads its output, or for a person at its console.

use crate::accel::Accel;
use crate::arguments::{QEMU, Serial, arguments};
use crate::capture::capture;
use crate::kvm::Kvm;
use crate::machine::Machine;
use crate::outcome::Outcome;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, ErrorKind, IsTerminal};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

impl Machine {
    /// Runs the machine until it switches itself off or its time limit is reached. Uses KVM if [`Kvm::tested`] says so. Prints the
    /// QEMU command on standard error.
    ///
    /// # Errors
    ///
    /// A machine that did not start: no QEMU, a QEMU that fails, or a guest without any output. A later failure in the guest is no
    /// error: it is in the [`Outcome`].
    pub fn run(&self) -> Result<Outcome> {
        let accel = match self.counted {
            true => Accel::Counted,
            false if Kvm::tested(&self.kernel)? == Kvm::On => Accel::Kvm,
            false => Accel::Tcg,
        };
        capture(self, accel)
    }

    /// Runs the machine for a person, without a time limit, until it switches itself off. If standard input is a terminal, it is the
    /// machine's console: the keys Ctrl-a x end the machine, Ctrl-a c open QEMU's monitor, and all others go to the guest. Otherwise
    /// the console is only shown on standard output. As soon as `interrupted` returns an error, the machine is ended.
    ///
    /// # Errors
    ///
    /// No QEMU, a QEMU that fails, or the error of `interrupted`. A failure in the guest is no error: it is on the console.
    pub fn interact(&self, kvm: Kvm, interrupted: &dyn Fn() -> io::Result<()>) -> Result<()> {
        let terminal = io::stdin().is_terminal();
        if terminal {
            eprintln!("To end the machine at any time, press Ctrl-a, then x.");
        }
        let start = |with_kvm| start(self.command(terminal, with_kvm), interrupted);
        let with_kvm = kvm.is_tried();
        let mut status = start(with_kvm)?;
        if !status.success() && with_kvm && kvm == Kvm::Auto {
            eprintln!("{QEMU} failed with KVM ({status}); starting again with emulation");
            status = start(false)?;
        }
        ensure!(status.success(), "{QEMU} failed ({status}); its error message is above");
        Ok(())
    }

    /// The command of [`Machine::interact`]: the console is standard output and, with `terminal`, standard input.
    #[must_use]
    pub fn command(&self, terminal: bool, kvm: bool) -> Command {
        let accel = if kvm { Accel::Kvm } else { Accel::Tcg };
        let serial = if terminal { Serial::Terminal } else { Serial::Output };
        let mut command = Command::new(QEMU);
        command.args(arguments(self, accel, serial));
        if !terminal {
            command.stdin(Stdio::null());
        }
        command
    }
}

fn start(mut command: Command, interrupted: &dyn Fn() -> io::Result<()>) -> Result<ExitStatus> {
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::Error::new(error)
            .context(format!("there is no {QEMU} on the PATH; install QEMU (Debian: apt install qemu-system-x86)")),
        _ => anyhow::Error::new(error).context(format!("running {QEMU}")),
    })?;
    wait(&mut child, interrupted).with_context(|| format!("waiting for {QEMU}"))
}

/// Waits for the end of QEMU, and sends it SIGTERM when `interrupted` returns an error: QEMU then also restores the terminal.
fn wait(child: &mut Child, interrupted: &dyn Fn() -> io::Result<()>) -> io::Result<ExitStatus> {
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            interrupted()?;
            return Ok(status);
        }
        if interrupted().is_err() && !asked {
            kill_process(Pid::from_child(child), Signal::TERM)?;
            asked = true;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
