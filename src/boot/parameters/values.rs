//! What the words of the command line take for values: text in, a value or a sentence out.

use crate::formats::size;
use anyhow::{Context, Result, bail, ensure};

/// What to do when the boot fails, and how long somebody has to stop it, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnFailure {
    pub action: Action,
    pub seconds: u64,
}

/// What becomes of a machine whose boot failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It asks what to do.
    Menu,
    /// PID 1 ends, so that the kernel panics and does what its `panic=` says.
    Panic,
    /// It is switched off.
    PowerOff,
    /// It starts again.
    Reboot,
}

impl OnFailure {
    /// Reads `reboot`, `reboot,30`, and so on.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn parse(value: &str) -> Result<Self> {
        let (action, seconds) = value.split_once(',').unwrap_or((value, "0"));
        let action = match action {
            "menu" => Action::Menu,
            "panic" => Action::Panic,
            "poweroff" => Action::PowerOff,
            "reboot" => Action::Reboot,
            _ => bail!("it takes menu, panic, poweroff or reboot, the last three with seconds to wait: reboot,30"),
        };
        let seconds = size::decimal(seconds).context("behind the comma it takes a number of seconds")?;
        Ok(Self { action, seconds })
    }
}

/// Whether a word without a value is meant: it has none, or one that means yes.
///
/// # Errors
///
/// A value that is neither yes nor no.
pub fn flag(value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("1" | "y" | "yes" | "on" | "true") => Ok(true),
        Some("0" | "n" | "no" | "off" | "false") => Ok(false),
        Some(_) => bail!("it takes no value, or 1 or 0"),
    }
}

/// A host id as NixOS' `networking.hostId` has it: eight hexadecimal digits.
///
/// # Errors
///
/// Anything else.
pub fn host_id(value: &str) -> Result<u32> {
    // from_str_radix alone would take a sign
    let digits = value.len() == 8 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u32::from_str_radix(value, 16).ok()).flatten().context("it takes eight hexadecimal digits: 4e98920d")
}

/// A size as tmpfs takes it, unless it would leave no room for anything.
///
/// # Errors
///
/// What tmpfs would refuse, and 0.
pub fn size(value: &str) -> Result<String> {
    match value.strip_suffix('%') {
        Some(_) => ensure!(size::percent(value).is_some(), "it takes 1% to 100% of the memory"),
        // tmpfs takes 0 for "no limit", which fills the memory until the machine is dead.
        None => ensure!(amount(value).is_some_and(|bytes| bytes > 0), "it takes a size such as 512m, 4g or 80%"),
    }
    Ok(value.into())
}

/// A number as tmpfs takes it.
///
/// # Errors
///
/// What tmpfs would refuse.
pub fn number(value: &str) -> Result<String> {
    ensure!(amount(value).is_some(), "it takes a number, with k, m or g for thousands of 1,024");
    Ok(value.into())
}

/// A size, if tmpfs does not refuse so many (`BOGO_INODE_SIZE`, mm/shmem.c): a mount that is refused is a boot that fails.
fn amount(value: &str) -> Option<u64> {
    size::parse(value).filter(|amount| *amount <= u64::MAX >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_on_failure() {
        for (value, action, seconds) in [
            ("menu", Action::Menu, 0),
            ("panic", Action::Panic, 0),
            ("reboot,30", Action::Reboot, 30),
            ("poweroff,0", Action::PowerOff, 0),
        ] {
            assert_eq!(OnFailure::parse(value).unwrap(), OnFailure { action, seconds }, "{value}");
        }
        for value in ["", "restart", "reboot,", "reboot,-1", "reboot,1s", "reboot,99999999999999999999", ",5"] {
            assert!(OnFailure::parse(value).is_err(), "{value}");
        }
    }

    #[test]
    fn flags() {
        assert!(flag(None).unwrap() && flag(Some("1")).unwrap());
        assert!(!flag(Some("0")).unwrap());
        assert!(flag(Some("")).is_err());
    }

    #[test]
    fn host_ids() {
        assert_eq!(host_id("4e98920d").unwrap(), 0x4e98_920d);
        for value in ["", "4e98920", "4e98920d0", "+e98920d", "4e98920g"] {
            assert!(host_id(value).is_err(), "{value}");
        }
    }
}
