//! The processes of stage 1, which are to end with it.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// How long a process may take to die; one that waits for a device dies only after that.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reaps the processes that have ended and have no other parent than PID 1.
pub fn reap() {
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
}

/// Kills the remaining processes of stage 1, as the scripted stage 1 does: jobs of a rescue shell, children that a program left. A
/// name with `@` in front is that of a storage daemon, which the root needs (systemd, `docs/ROOT_STORAGE_DAEMONS.md`).
pub fn kill_all() {
    reap();
    // Whatever has no parent is a child of PID 1: without a child there is no process, and nothing to look for.
    if !has_children() {
        return;
    }
    for (pid, name) in others() {
        if is_storage_daemon(&name) {
            log::info!("Leaving the storage daemon {name} alone");
            continue;
        }
        log::info!("Killing {name}, which stage 1 left running");
        if let Err(errno) = kill(pid, Signal::SIGKILL) {
            log::warn!("Killing {name}: {errno}");
        }
    }
    let end = Instant::now() + PATIENCE;
    while has_children() && others().any(|(_, name)| !is_storage_daemon(&name)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
        reap();
    }
}

fn is_storage_daemon(name: &str) -> bool {
    name.starts_with('@')
}

fn has_children() -> bool {
    waitpid(None, Some(WaitPidFlag::WNOHANG)) != Err(Errno::ECHILD)
}

/// All processes but this one and the kernel's own, which have no arguments, and the names they were called by.
fn others() -> impl Iterator<Item = (Pid, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok().filter(|pid| *pid != 1)?;
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        let name = arguments.split(|byte| *byte == 0).next().filter(|name| !name.is_empty())?;
        Some((Pid::from_raw(pid), String::from_utf8_lossy(name).into_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_namespaces;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    #[test]
    fn all_processes_are_killed_but_storage_daemons() {
        in_namespaces(module_path!(), "all_processes_are_killed_but_storage_daemons", || {
            let sleep = |name: &str| Command::new("/bin/sleep").arg0(name).arg("9").spawn().unwrap();
            let (mut daemon, mut job) = (sleep("@mdmon"), sleep("sleep"));
            // Each has its name only after execve(2).
            while others().count() < 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            kill_all();
            // Reaped already, or ended by the signal.
            assert!(job.wait().map_or(true, |status| status.signal() == Some(9)));
            assert!(daemon.try_wait().unwrap().is_none(), "it still runs");
            daemon.kill().unwrap();
        });
    }
}
