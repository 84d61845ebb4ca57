//! Parses the values of kernel parameters: text in, a value or an error message out.

use crate::formats::size;
use anyhow::{Context, Result, bail, ensure};

/// The action after a failed boot, and the delay before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnFailure {
    /// The action.
    pub action: Action,
    /// The delay, seconds. A key press within it cancels the action and opens the menu.
    pub seconds: u64,
}

/// An action after a failed boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Show the menu.
    Menu,
    /// End process 1, so that the kernel panics and acts as `panic=` says.
    Panic,
    /// Switch the machine off.
    PowerOff,
    /// Reboot the machine.
    Reboot,
}

impl OnFailure {
    /// Parses a value such as `reboot` or `reboot,30`.
    ///
    /// # Errors
    ///
    /// An unknown action or an invalid number of seconds.
    pub fn parse(value: &str) -> Result<Self> {
        let (action, seconds) = value.split_once(',').unwrap_or((value, "0"));
        let action = match action {
            "menu" => Action::Menu,
            "panic" => Action::Panic,
            "poweroff" => Action::PowerOff,
            "reboot" => Action::Reboot,
            _ => bail!(
                "the value must be menu, panic, poweroff or reboot; the last three can have a delay in seconds: reboot,30"
            ),
        };
        let seconds = size::decimal(seconds).context("the part after the comma must be a number of seconds")?;
        Ok(Self { action, seconds })
    }
}

/// Parses a flag. Without a value it is set.
///
/// # Errors
///
/// A value that means neither yes nor no.
pub fn flag(value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("1" | "y" | "yes" | "on" | "true") => Ok(true),
        Some("0" | "n" | "no" | "off" | "false") => Ok(false),
        Some(_) => bail!("use it without a value, or with 1 or 0"),
    }
}

/// Parses a host id in the form of NixOS' `networking.hostId`: eight hexadecimal digits.
///
/// # Errors
///
/// A value of another form.
pub fn host_id(value: &str) -> Result<u32> {
    // from_str_radix alone accepts a sign.
    let digits = value.len() == 8 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits
        .then(|| u32::from_str_radix(value, 16).ok())
        .flatten()
        .context("the value must be eight hexadecimal digits, such as 4e98920d")
}

/// Parses the SHA-256 of a number of images, separated by commas, and returns them in lowercase digits.
///
/// # Errors
///
/// A value of another form, or of another number of images.
pub fn digests(value: &str, images: usize) -> Result<Vec<String>> {
    let digests: Vec<_> = value.split(',').map(str::to_ascii_lowercase).collect();
    let is_one = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(digests.iter().all(is_one), "each one must have 64 hexadecimal digits; separate them by commas");
    ensure!(digests.len() == images, "it has the SHA-256 of {} images, and firn.store= names {images}", digests.len());
    Ok(digests)
}

/// Checks a size for a tmpfs.
///
/// # Errors
///
/// A value that tmpfs refuses, and 0.
pub fn size(value: &str) -> Result<String> {
    match value.strip_suffix('%') {
        Some(_) => ensure!(size::percent(value).is_some(), "it must be 1% to 100% of the memory"),
        // For tmpfs, 0 means no limit: files could then fill the memory until the machine stops working.
        None => ensure!(amount(value).is_some_and(|bytes| bytes > 0), "it must be a size such as 512m, 4g or 80%"),
    }
    Ok(value.into())
}

/// Checks a number of inodes for a tmpfs.
///
/// # Errors
///
/// A value that tmpfs refuses.
pub fn number(value: &str) -> Result<String> {
    ensure!(amount(value).is_some(), "it must be a number, possibly with k (1,024), m or g");
    Ok(value.into())
}

/// Parses a size, and refuses numbers that are too large for tmpfs (`BOGO_INODE_SIZE`, mm/shmem.c): the mount would fail, and with it
/// the boot.
fn amount(value: &str) -> Option<u64> {
    size::parse(value).filter(|amount| *amount <= u64::MAX >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_on_failure() {
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
    fn b_4_digests() {
        let (one, two) = ("0A".repeat(32), "1".repeat(64));
        assert_eq!(digests(&one, 1).unwrap(), [one.to_lowercase()]);
        assert_eq!(digests(&format!("{two},{one}"), 2).unwrap(), [two.clone(), one.to_lowercase()]);
        for (value, images, expected) in [
            (&*one, 2, "it has the SHA-256 of 1 images, and firn.store= names 2"),
            (&two, 0, "firn.store= names 0"),
            ("", 1, "64 hexadecimal digits"),
            (&two[1..], 1, "64 hexadecimal digits"),
            (&format!("{two},"), 1, "64 hexadecimal digits"),
        ] {
            let error = digests(value, images).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn host_ids() {
        assert_eq!(host_id("4e98920d").unwrap(), 0x4e98_920d);
        for value in ["", "4e98920", "4e98920d0", "+e98920d", "4e98920g"] {
            assert!(host_id(value).is_err(), "{value}");
        }
    }
}
