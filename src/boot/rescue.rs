//! The end of a boot that failed: the reasons, once, where a person sees them; then what `panic=` asks for.

use anyhow::Error;
use nix::errno::Errno;
use nix::sys::wait::wait;
use nix::unistd::pause;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

/// Says why the boot failed and ends it.
///
/// The kernel log gets the chain of reasons on one line, the console gets it as a block that is not torn apart by other
/// messages. Then the administrator's `panic=` decides, which is in `/proc/sys/kernel/panic`: where it is set, PID 1 exits,
/// and the kernel panics and reboots as told; where it is 0, the machine stays as it is, for somebody to read the screen.
pub fn fail(error: &Error) -> ! {
    log::error!("The boot failed: {error:#}");
    // Without /proc there is no telling: then the kernel shall decide.
    let reboots = fs::read_to_string("/proc/sys/kernel/panic").map_or(true, |seconds| seconds.trim() != "0");
    say(&screen(error, reboots));
    if reboots {
        // With a negative panic= the machine is gone at once, and so would be what a slow serial line has not sent yet. A
        // moment and not tcdrain(3): a line that somebody holds up must not hold up the reboot.
        std::thread::sleep(Duration::from_secs(1));
        std::process::exit(1);
    }
    loop {
        if wait() == Err(Errno::ECHILD) {
            pause();
        }
    }
}

/// Writes to standard error, which is the console that the kernel opened for PID 1. (`eprint!` panics when that fails.)
pub fn say(text: &str) {
    if let Err(error) = std::io::stderr().write_all(text.as_bytes()) {
        log::error!("Writing to the console: {error}");
    }
}

/// What the console shows.
fn screen(error: &Error, reboots: bool) -> String {
    let mut screen = String::from("\n\n  firn-init: the boot failed.\n\n");
    for (depth, reason) in error.chain().enumerate() {
        let joint = if depth == 0 { "in the step" } else { "because" };
        // Writing to a string does not fail.
        if writeln!(screen, "    {joint:>11}  {reason}").is_err() {
            break;
        }
    }
    screen.push_str(if reboots {
        "\n  The machine reboots as panic= asks.\n\n"
    } else {
        "\n  The machine waits. Ctrl-Alt-Del reboots it; with panic=30 on the command line it reboots by itself.\n\n"
    });
    screen
}

#[cfg(test)]
mod tests {
    use super::screen;
    use anyhow::anyhow;

    #[test]
    fn every_reason_has_a_line() {
        let error = anyhow!("EINVAL").context("mounting the image").context("store");
        let waits = screen(&error, false);
        let lines: Vec<_> = waits.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(
            lines[..4],
            ["firn-init: the boot failed.", "in the step  store", "because  mounting the image", "because  EINVAL"]
        );
        assert!(waits.contains("Ctrl-Alt-Del"));
        assert!(screen(&error, true).contains("reboots as panic= asks"));
    }
}
