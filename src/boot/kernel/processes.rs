//! The child processes of stage 1: reaps and kills them.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// The time limit for killed processes to end. A process that waits for a device ends only after the wait.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Reaps the ended processes whose parent is process 1.
pub fn reap() {
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
}

/// Kills the remaining processes of stage 1, as NixOS' scripted stage 1 does: jobs of a rescue shell, background processes of a program.
/// It spares storage daemons, which the root needs; their names begin with `@` (systemd, `docs/ROOT_STORAGE_DAEMONS.md`).
pub fn kill_all() {
    reap();
    // A process without a parent becomes a child of process 1. So without children there are no processes to look for in /proc.
    if !has_children() {
        return;
    }
    for (pid, name) in others() {
        if is_storage_daemon(&name) {
            log::info!("Not killing the storage daemon {name}");
            continue;
        }
        log::info!("Killing {name}, which still runs from stage 1");
        if let Err(errno) = kill(pid, Signal::SIGKILL) {
            log::warn!("Killing {name}: {errno}; it goes on running in the booted system");
        }
    }
    let end = Instant::now() + TIMEOUT;
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

/// All processes with their names (the first argument), except process 1 and the kernel's threads, which have no arguments.
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
            let mut jobs = [sleep("sleep"), sleep("job@1")];
            let mut daemon = sleep("@mdmon");
            // Each has its name only after execve(2).
            while others().count() < 3 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let start = Instant::now();
            kill_all();
            // Nobody waits for the daemon.
            assert!(start.elapsed() < TIMEOUT);
            for job in &mut jobs {
                // Reaped already, or ended by the signal.
                assert!(job.wait().map_or(true, |status| status.signal() == Some(9)));
            }
            // A process that is killed takes a moment to end.
            std::thread::sleep(Duration::from_millis(100));
            assert!(daemon.try_wait().unwrap().is_none(), "it still runs");
            daemon.kill().unwrap();
        });
    }
}
