//! The end of a boot that failed: the reasons, once, on every console; then what the command line asks for, or a menu.

use crate::boot::console::consoles::{self, Keyboards};
use crate::boot::console::kmsg;
use crate::boot::kernel::memory;
use crate::boot::kernel::processes;
use crate::boot::parameters::options::{self, Options, Stop};
use crate::boot::parameters::values::{Action, OnFailure};
use crate::boot::rescue::shell;
use crate::boot::step::{Failed, Skippable};
use crate::contract::plan;
use crate::formats::cmdline::CommandLine;
use anyhow::Error;
use nix::sys::reboot::{RebootMode, reboot};
use std::fs;
use std::time::{Duration, Instant};

/// How many of the warnings and of the kernel's errors there is room for: a VGA screen has 25 lines.
const LAST: usize = 4;

/// A person's answer to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Run the step again: the reason may be gone.
    Again,
    /// Go on without the step.
    Skip,
}

/// Says why the boot failed and does what the command line asks for. Returns if a person at a console answered.
///
/// The kernel log gets the chain of reasons on one line. The consoles get it as a block that is not torn apart by other messages.
#[must_use]
pub fn fail(failed: Failed) -> Answer {
    let offers = Offers { other_key: Some("try this step again"), skippable: failed.skippable };
    let shell = report(&failed.error.context(failed.step));
    menu(shell, offers)
}

/// Says which bug ended the boot and does what the command line asks for. There is nothing to try again.
pub fn fail_for_ever(error: &Error) -> ! {
    let shell = report(error);
    loop {
        let _: Answer = menu(shell, Offers { other_key: None, skippable: Skippable::No });
    }
}

/// Stops the boot where the command line asks for it (`boot.debug1` and others), until a person goes on.
pub fn stop(options: &Options, at: Stop) {
    if options.stops.contains(&at) {
        log::info!("Stopping, as the command line asks");
        consoles::say("\n\n  firn-init: the boot stops here, as the command line asks.\n");
        let _: Answer =
            menu(options.shell, Offers { other_key: Some("go on with the boot"), skippable: Skippable::No });
    }
}

/// Shows the reasons. Ends the machine if that is asked for and nobody is there; otherwise says whether a shell is allowed.
fn report(error: &Error) -> bool {
    let screen = screen(error);
    log::error!("The boot failed: {error:#}");
    let line = fs::read("/proc/cmdline").unwrap_or_default();
    let (options, _) = options::parse(&CommandLine::parse(&line));
    // Without /proc there is no telling: then the kernel decides.
    let panics = fs::read_to_string("/proc/sys/kernel/panic").map_or(true, |seconds| seconds.trim() != "0");
    let ending = ending(&options, panics);
    consoles::say(&screen);
    match ending.action {
        Action::Menu => {}
        _ if somebody_is_there(ending) => {}
        Action::Panic => std::process::exit(1),
        Action::PowerOff => end(RebootMode::RB_POWER_OFF),
        Action::Reboot => end(RebootMode::RB_AUTOBOOT),
    }
    options.shell
}

/// What is asked for, and otherwise what an administrator would expect: with a shell asked for there is somebody to use it;
/// a machine whose kernel is to reboot after a panic (`panic=`) is to reboot after this, too; any other one waits.
fn ending(options: &Options, panics: bool) -> OnFailure {
    let action = if panics && !options.shell { Action::Panic } else { Action::Menu };
    options.on_failure.unwrap_or(OnFailure { action, seconds: 0 })
}

/// Waits as long as was asked for. True if a key was pressed before the end.
fn somebody_is_there(OnFailure { action, seconds }: OnFailure) -> bool {
    let what = match action {
        Action::Menu => return true,
        Action::Panic => "ends in a kernel panic",
        Action::PowerOff => "is switched off",
        Action::Reboot => "reboots",
    };
    if seconds == 0 {
        consoles::say(&format!("\n  The machine {what}, as the command line asks.\n\n"));
        // What ends it takes away what a slow serial line has not sent yet. A moment and not tcdrain(3): a line that
        // somebody holds up must not hold up the reboot.
        std::thread::sleep(Duration::from_secs(1));
        return false;
    }
    let text = format!("\n  The machine {what} in {seconds} s, as the command line asks. Any key stops that.\n\n");
    ask(&text, Some(Duration::from_secs(seconds))).is_some()
}

/// What the menu offers apart from a shell and the reboot.
#[derive(Clone, Copy)]
struct Offers {
    /// The effect of every other key, if there is one.
    other_key: Option<&'static str>,
    skippable: Skippable,
}

/// What a person types to start a system that was not activated.
const WITHOUT: &str = "without activation";

/// Asks what to do, until the answer is to go on.
fn menu(shell_allowed: bool, offers: Offers) -> Answer {
    let no_shell = match (shell_allowed, shell::exists()) {
        (true, true) => None,
        (true, false) => Some("the ramdisk has none; firn build --rescue-shell packs one"),
        (false, _) => Some("boot.shell_on_fail on the command line would allow one"),
    };
    loop {
        let Some((key, terminal)) = ask(&choices(no_shell, offers), None) else { continue };
        log::info!("Somebody at {terminal} chose {:?}", char::from(key));
        let shell = match key {
            b'r' => {
                end(RebootMode::RB_AUTOBOOT);
                Ok(())
            }
            b'i' if no_shell.is_none() => shell::run(&terminal),
            b'f' if no_shell.is_none() => shell::replace_this_process(&terminal).map(|never| match never {}),
            b'i' | b'f' => Ok(()),
            b's' => match offers.skippable {
                Skippable::ByKey => return Answer::Skip,
                Skippable::InWords if typed(WITHOUT) => return Answer::Skip,
                Skippable::InWords | Skippable::No => Ok(()),
            },
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
        None => "  i  a shell; firn-init waits for its end\n  f  a shell in place of firn-init, as process 1".into(),
        Some(reason) => format!("  There is no shell: {reason}."),
    };
    let skip = match offers.skippable {
        Skippable::No => String::new(),
        Skippable::ByKey => "  s  go on without this step\n".into(),
        Skippable::InWords => format!("  s  start a system that is not activated; asks for the words: {WITHOUT}\n"),
    };
    let other = offers.other_key.map_or(String::new(), |effect| format!("  *  any other key: {effect}\n"));
    format!("\n{shell}\n  r  reboot\n{skip}{other}\n")
}

/// Whether a person types these words and Enter. What they type is shown.
fn typed(words: &str) -> bool {
    let mut keyboards = Keyboards::listen();
    consoles::say(&format!("\n  Type \"{words}\" and Enter: "));
    let mut line = String::new();
    while let Some((key, _)) = next_key(&mut keyboards, None) {
        if matches!(key, b'\r' | b'\n') {
            break;
        }
        consoles::say(char::from(key).encode_utf8(&mut [0; 4]));
        line.push(char::from(key));
    }
    consoles::say("\n");
    line == words
}

/// Shows a text and waits for a key, for ever or so long.
fn ask(text: &str, limit: Option<Duration>) -> Option<(u8, String)> {
    // In this order: an answer that comes as soon as the text is there must not be thrown away.
    let mut keyboards = Keyboards::listen();
    consoles::say(text);
    next_key(&mut keyboards, limit)
}

/// Waits for a key that a person may have meant, for ever or so long: noise on a serial line is no answer, nor is half of an arrow key.
/// Meanwhile it reaps processes, as the parent of all processes without one has to.
fn next_key(keyboards: &mut Keyboards, limit: Option<Duration>) -> Option<(u8, String)> {
    const ESCAPE: u8 = 0x1b;
    let start = Instant::now();
    while limit.is_none_or(|limit| start.elapsed() < limit) {
        processes::reap();
        match keyboards.key(Duration::from_secs(1)) {
            Some((ESCAPE, _)) => {
                std::thread::sleep(Duration::from_millis(50));
                keyboards.flush();
            }
            Some((key, terminal)) if key.is_ascii_graphic() || key.is_ascii_whitespace() => {
                return Some((key, terminal));
            }
            _ => {}
        }
    }
    None
}

/// Switches the machine off or starts it again. What was written to a disk gets there.
fn end(mode: RebootMode) {
    rustix::fs::sync();
    let Err(errno) = reboot(mode);
    consoles::say(&format!("\n  The kernel refuses: {errno}\n"));
}

/// What the consoles show.
fn screen(error: &Error) -> String {
    let joints = std::iter::once("in the step").chain(std::iter::repeat("because"));
    let reasons = joints.zip(error.chain()).map(|(joint, reason)| line(joint, &reason.to_string()));
    let plan = fs::read_to_string(plan::PATH).ok().and_then(|json| plan::Plan::from_json(&json).ok());
    let memory =
        line("memory", &memory::sentence(plan.map(|plan| memory::needed(plan.image_bytes(), plan.is_retained()))));
    let said = [block("warnings", &kmsg::warnings()), block("kernel", &kmsg::kernel_errors())].concat();
    format!("\n\n  firn-init: the boot failed.\n\n{}\n{memory}{said}", reasons.collect::<String>())
}

/// The last of some messages, with what they are in front of the first.
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
        assert!(lines[4].starts_with("memory  ") && lines[4].contains("MiB are free"), "{screen}");
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
    fn every_step_can_be_tried_again_and_activation_is_left_out_in_words_only() {
        let offers = |skippable| choices(None, Offers { other_key: Some("try this step again"), skippable });
        for (skippable, expected) in [
            (Skippable::No, None),
            (Skippable::ByKey, Some("  s  go on without this step")),
            (
                Skippable::InWords,
                Some("  s  start a system that is not activated; asks for the words: without activation"),
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
    fn endings() {
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
            assert_eq!(ending(&options, panics), expected, "{line}");
        }
    }
}
