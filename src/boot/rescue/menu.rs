//! The end of a failed boot: shows the reasons on every console, then does what the command line asks for, or shows a menu.

use crate::boot::console::consoles::{self, Keyboards};
use crate::boot::console::kmsg;
use crate::boot::kernel::child;
use crate::boot::kernel::command_line;
use crate::boot::kernel::file;
use crate::boot::kernel::memory;
use crate::boot::kernel::processes;
use crate::boot::parameters::options::{self, Options, Stop};
use crate::boot::parameters::values::{Action, OnFailure};
use crate::boot::rescue::shell;
use crate::boot::root;
use crate::boot::step::{Failed, Skippable};
use crate::contract::place::INITRD;
use crate::contract::plan;
use anyhow::Error;
use nix::sys::reboot::{RebootMode, reboot};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of warnings, and of kernel errors, on the screen. A VGA screen has only 25 lines.
const LAST: usize = 4;

/// The time limit for the sync of the disks before the end. A disk that does not answer must not stop the reboot.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// A person's answer to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Try the step again: a person may have fixed the cause.
    Again,
    /// Go on without the step.
    Skip,
}

/// Shows why the boot failed and does what the command line asks for. Returns only if a person at a console answers.
///
/// The kernel log gets the chain of reasons in one line. The consoles get it as a block without other messages in between.
#[must_use]
pub fn fail(failed: Failed) -> Answer {
    let offers = Offers { other_key: Some("try this step again"), skippable: failed.skippable };
    let shell = report(&failed.error.context(failed.step));
    menu(shell, offers)
}

/// Shows which bug ended the boot and does what the command line asks for. The menu offers no other attempt.
pub fn fail_for_ever(error: &Error) -> ! {
    if let Err(error) = root::leave() {
        log::warn!("Going back to the initramfs: {error:#}");
    }
    let shell = report(error);
    loop {
        let _: Answer = menu(shell, Offers { other_key: None, skippable: Skippable::No });
    }
}

/// Stops the boot if the command line asks for a stop here (`boot.debug1` and others), until a person answers.
pub fn stop(options: &Options, at: Stop) {
    if options.stops.contains(&at) {
        log::info!("Stopping, because of the kernel command line");
        consoles::say("\n\n  firn-init: the boot stops here, as the kernel command line asks.\n");
        let _: Answer =
            menu(options.shell, Offers { other_key: Some("go on with the boot"), skippable: Skippable::No });
    }
}

/// Shows the reasons. Then panics, switches off or reboots if this is asked for, unless a person presses a key. Returns whether the menu
/// may offer a shell.
fn report(error: &Error) -> bool {
    let screen = screen(error);
    log::error!("The boot failed: {error:#}");
    let (options, _) = options::parse(&command_line::now());
    // Without /proc the setting is unknown. Then end process 1, and the kernel decides.
    let panics = fs::read_to_string("/proc/sys/kernel/panic").map_or(true, |seconds| seconds.trim() != "0");
    let on_failure = on_failure(&options, panics);
    consoles::say(&screen);
    match on_failure.action {
        Action::Menu => {}
        _ if is_cancelled(on_failure) => {}
        Action::Panic => std::process::exit(1),
        Action::PowerOff => end(RebootMode::RB_POWER_OFF),
        Action::Reboot => end(RebootMode::RB_AUTOBOOT),
    }
    options.shell
}

/// The action after a failed boot: as the command line asks, or by default as an administrator expects. A machine that reboots after a
/// panic (`panic=` is not 0, `panics`) reboots after a failed boot, too, unless a shell is asked for. Any other machine shows the menu.
fn on_failure(options: &Options, panics: bool) -> OnFailure {
    let action = if panics && !options.shell { Action::Panic } else { Action::Menu };
    options.on_failure.unwrap_or(OnFailure { action, seconds: 0 })
}

/// Announces the action and waits for its delay. Returns whether a person cancels it with a key.
fn is_cancelled(OnFailure { action, seconds }: OnFailure) -> bool {
    let effect = match action {
        Action::Menu => return true,
        Action::Panic => "stops with a kernel panic",
        Action::PowerOff => "is switched off",
        Action::Reboot => "reboots",
    };
    if seconds == 0 {
        consoles::say(&format!("\n  The machine {effect}, as the kernel command line asks.\n\n"));
        // A slow serial line needs a moment to send the bytes that its hardware has.
        std::thread::sleep(Duration::from_secs(1));
        return false;
    }
    let text = format!(
        "\n  The machine {effect} in {seconds} s, as the kernel command line asks. Press any key to cancel.\n\n"
    );
    ask(&text, Some(Duration::from_secs(seconds))).is_some()
}

/// The choices of the menu apart from a shell and the reboot.
#[derive(Clone, Copy)]
struct Offers {
    /// The effect of every other key, if it has one.
    other_key: Option<&'static str>,
    /// Whether the boot can go on without the failed step.
    skippable: Skippable,
}

/// The words that a person has to type to start a system without activation.
const SKIP_ACTIVATION: &str = "without activation";

/// Shows the menu until the answer is to try again or to skip the step.
fn menu(shell_allowed: bool, offers: Offers) -> Answer {
    let no_shell = match (shell_allowed, shell::exists()) {
        (true, true) => None,
        (true, false) => Some("the ramdisk contains none; firn build --rescue-shell packs one"),
        (false, _) => Some("to allow one, add boot.shell_on_fail to the kernel command line"),
    };
    loop {
        let Some((key, terminal)) = ask(&choices(no_shell, offers), None) else { continue };
        log::info!("A person at {terminal} pressed {:?}", char::from(key));
        let shell = match key {
            b'r' => {
                end(RebootMode::RB_AUTOBOOT);
                Ok(())
            }
            b'i' if no_shell.is_none() => shell::run(&terminal),
            b'f' if no_shell.is_none() => shell::replace_this_process(&terminal).map(|never| match never {}),
            b'i' | b'f' => Ok(()),
            b's' if offers.skippable == Skippable::ByKey => return Answer::Skip,
            b's' if offers.skippable == Skippable::InWords => {
                if typed(SKIP_ACTIVATION, &terminal) {
                    return Answer::Skip;
                }
                consoles::say("\n  The words differ: the system is not started.\n");
                Ok(())
            }
            _ if offers.other_key.is_some() => return Answer::Again,
            _ => Ok(()),
        };
        if let Err(error) = shell {
            consoles::say(&format!("\n  {error:#}\n"));
        }
    }
}

/// The lines below the reasons.
fn choices(no_shell: Option<&str>, offers: Offers) -> String {
    let shell = match no_shell {
        None => {
            "  i  start a shell; this menu comes back after it\n  f  start a shell instead of firn-init, as process 1"
                .into()
        }
        Some(reason) => format!("  There is no shell: {reason}."),
    };
    let skip = match offers.skippable {
        Skippable::No => String::new(),
        Skippable::ByKey => "  s  go on without this step\n".into(),
        Skippable::InWords => {
            format!("  s  start the system without its activation; asks you to type: {SKIP_ACTIVATION}\n")
        }
    };
    let other = offers.other_key.map_or(String::new(), |effect| format!("  *  any other key: {effect}\n"));
    format!("\n{shell}\n  r  reboot\n{skip}{other}\n")
}

/// Asks a person at a terminal to type these words. Returns whether the line equals them. The typed characters are shown.
fn typed(words: &str, terminal: &str) -> bool {
    let mut keyboards = Keyboards::listen();
    consoles::say(&format!("\n  Type \"{words}\" and press Enter: "));
    let mut line = String::new();
    while let Some((key, _)) =
        next_key(&mut keyboards, None, |key| is_character(key) || matches!(key, BACKSPACE | DELETE))
    {
        match key {
            b'\r' | b'\n' => break,
            BACKSPACE | DELETE => {
                if line.pop().is_some() {
                    consoles::say_to(terminal, "\x08 \x08");
                }
            }
            key => {
                line.push(char::from(key));
                consoles::say_to(terminal, char::from(key).encode_utf8(&mut [0; 4]));
            }
        }
    }
    consoles::say("\n");
    line == words
}

const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

/// Shows a text and waits for a key, up to `limit` or for ever.
fn ask(text: &str, limit: Option<Duration>) -> Option<(u8, String)> {
    // Listen first: a key that is pressed as soon as the text appears must not be discarded.
    let mut keyboards = Keyboards::listen();
    consoles::say(text);
    next_key(&mut keyboards, limit, is_character)
}

fn is_character(key: u8) -> bool {
    key.is_ascii_graphic() || key.is_ascii_whitespace()
}

/// Waits for an accepted key, up to `limit` or for ever. It ignores noise on a serial line and keys that send an escape sequence, such as arrow
/// keys. In the meantime it reaps processes, as process 1 has to.
fn next_key(keyboards: &mut Keyboards, limit: Option<Duration>, accepts: fn(u8) -> bool) -> Option<(u8, String)> {
    const ESCAPE: u8 = 0x1b;
    let start = Instant::now();
    while limit.is_none_or(|limit| start.elapsed() < limit) {
        processes::reap();
        match keyboards.key(Duration::from_secs(1)) {
            Some((ESCAPE, _)) => {
                std::thread::sleep(Duration::from_millis(50));
                keyboards.flush();
            }
            Some((key, terminal)) if accepts(key) => return Some((key, terminal)),
            // A line that hung up may be back.
            None if keyboards.is_empty() => {
                std::thread::sleep(Duration::from_secs(1));
                *keyboards = Keyboards::listen();
            }
            _ => {}
        }
    }
    None
}

/// Switches the machine off or reboots it, after a sync of the disks.
fn end(mode: RebootMode) {
    let sync = || {
        rustix::fs::sync();
        Ok(())
    };
    if let Err(error) = child::run("writing all files to their disks", Instant::now() + SYNC_LIMIT, &sync) {
        consoles::say(&format!("\n  {error:#}\n  The machine goes down without waiting any longer.\n"));
    }
    let Err(errno) = reboot(mode);
    consoles::say(&format!(
        "\n  The kernel refuses to switch off or reboot: {errno}. Use the power or reset button.\n"
    ));
}

/// The text for the consoles: the reasons, the memory, the last warnings and kernel errors.
fn screen(error: &Error) -> String {
    let joints = std::iter::once("in the step").chain(std::iter::repeat("because"));
    let reasons = joints.zip(error.chain()).map(|(joint, reason)| line(joint, &reason.to_string()));
    let plan = file::read_to_string(plan::PATH).ok().and_then(|json| plan::Plan::from_json(&json).ok());
    let memory = line(
        "memory",
        &memory::summary(plan.map(|plan| memory::needed(plan.image_bytes(), Path::new(INITRD).exists()))),
    );
    let messages = [block("warnings", &kmsg::warnings()), block("kernel", &kmsg::kernel_errors())].concat();
    format!("\n\n  firn-init: the boot failed.\n\n{}\n{memory}{messages}", reasons.collect::<String>())
}

/// The last messages, with `name` in front of the first one.
fn block(name: &str, messages: &[String]) -> String {
    let last = messages.get(messages.len().saturating_sub(LAST)..).unwrap_or_default();
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names.zip(last).map(|(name, text)| line(name, text)).collect()
}

fn line(name: &str, text: &str) -> String {
    format!("    {name:>11}  {}\n", text.trim_end().replace('\n', "\n                 "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::cmdline::CommandLine;
    use anyhow::anyhow;

    #[test]
    fn every_reason_has_a_line() {
        let error = anyhow!("EINVAL").context("mounting the image").context("store");
        let screen = screen(&error);
        let lines: Vec<_> = screen.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(
            lines[..4],
            ["firn-init: the boot failed.", "in the step  store", "because  mounting the image", "because  EINVAL"]
        );
        assert!(lines[4].starts_with("memory  ") && lines[4].contains("MiB of memory are free"), "{screen}");
    }

    #[test]
    fn only_the_last_messages_have_room() {
        let messages: Vec<_> = (1..=6).map(|number| number.to_string()).collect();
        assert_eq!(
            block("kernel", &messages),
            "         kernel  3\n                 4\n                 5\n                 6\n"
        );
        assert_eq!(block("kernel", &[]), "");
        assert_eq!(line("because", "one\ntwo\n"), "        because  one\n                 two\n");
    }

    #[test]
    fn every_step_can_be_tried_again_and_activation_is_skipped_in_words_only() {
        let offers = |skippable| choices(None, Offers { other_key: Some("try this step again"), skippable });
        for (skippable, expected) in [
            (Skippable::No, None),
            (Skippable::ByKey, Some("  s  go on without this step")),
            (
                Skippable::InWords,
                Some("  s  start the system without its activation; asks you to type: without activation"),
            ),
        ] {
            let shown = offers(skippable);
            assert!(shown.contains("  *  any other key: try this step again\n"), "{shown}");
            assert_eq!(shown.lines().find(|line| line.starts_with("  s")), expected);
        }
        let bug = choices(Some("no"), Offers { other_key: None, skippable: Skippable::No });
        assert_eq!(bug, "\n  There is no shell: no.\n  r  reboot\n\n");
    }

    #[test]
    fn actions_after_a_failure() {
        let now = |action| OnFailure { action, seconds: 0 };
        for (line, panics, expected) in [
            ("", false, now(Action::Menu)),
            ("", true, now(Action::Panic)),
            ("boot.shell_on_fail", true, now(Action::Menu)),
            ("boot.panic_on_fail", false, now(Action::Panic)),
            ("boot.shell_on_fail boot.panic_on_fail", false, now(Action::Panic)),
            ("firn.on_failure=menu", true, now(Action::Menu)),
            ("firn.on_failure=reboot,30", true, OnFailure { action: Action::Reboot, seconds: 30 }),
        ] {
            let (options, _) = options::parse(&CommandLine::parse(line.as_bytes()));
            assert_eq!(on_failure(&options, panics), expected, "{line}");
        }
    }
}
