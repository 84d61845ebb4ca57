//! firn's own words on the kernel command line ([`crate::plan::WORDS`] describes them).
//!
//! A word that is unknown, or a value that makes no sense, is a warning and never a boot that fails: nobody is there to
//! correct it.

use super::cmdline::Words;
use crate::plan::{PREFIX, WORDS};
use anyhow::{Context, Result, bail, ensure};
use log::LevelFilter;

/// What the administrator asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The store image in the ramdisk, in place of the plan's.
    pub image: Option<String>,
    /// Limits of the tmpfs that is the root.
    pub root: Limits,
    /// Limits of the tmpfs that is the store's upper layer.
    pub rw_store: Limits,
    /// What becomes of the Nix database.
    pub register: Register,
    /// What is written to the log.
    pub log: Option<LevelFilter>,
}

/// Limits of a tmpfs, as its options (`man 5 tmpfs`).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A number of bytes with `k`, `m` or `g`, or a part of the memory with `%`. Half of the memory if there is none.
    pub size: Option<String>,
    /// A number of inodes, with `k`, `m` or `g`; 0 is no limit.
    pub inodes: Option<String>,
}

/// How the store is registered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// By the system's Nix; the boot goes on if it fails.
    #[default]
    Load,
    /// By the system's Nix, or the boot fails.
    Required,
    /// Not at all.
    None,
}

/// Finds firn's words, warns of those that it does not understand, and sets the level of the log.
pub fn apply(words: &Words) -> Options {
    let (options, warnings) = parse(words);
    if let Some(level) = options.log {
        log::set_max_level(level);
    }
    for warning in warnings {
        log::warn!("{warning}");
    }
    options
}

/// The options, and a sentence for each word that is none.
fn parse(words: &Words) -> (Options, Vec<String>) {
    let mut options = Options::default();
    let mut warnings = Vec::new();
    for (name, value) in words.with_prefix(PREFIX) {
        let result = match value {
            Some(value) => options.set(name, value).with_context(|| format!("{name}={value}")),
            None => Err(anyhow::anyhow!("it has no value")).context(name.to_owned()),
        };
        if let Err(error) = result {
            warnings.push(format!("Left out of the kernel command line: {error:#}"));
        }
    }
    (options, warnings)
}

impl Options {
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "firn.store" => {
                ensure!(value.starts_with('/'), "it takes an absolute path in the ramdisk");
                self.image = Some(value.into());
            }
            "firn.root.size" => self.root.size = Some(size(value)?),
            "firn.root.inodes" => self.root.inodes = Some(number(value)?),
            "firn.rw-store.size" => self.rw_store.size = Some(size(value)?),
            "firn.rw-store.inodes" => self.rw_store.inodes = Some(number(value)?),
            "firn.register" => {
                self.register = match value {
                    "load" => Register::Load,
                    "required" => Register::Required,
                    "none" => Register::None,
                    _ => bail!("it takes load, required or none"),
                }
            }
            "firn.log" => self.log = Some(value.parse().ok().context("it takes off, error, warn or info")?),
            _ => bail!("there is no such word; did you mean {}?", nearest(name)),
        }
        Ok(())
    }
}

impl Limits {
    /// The options of a tmpfs with these limits.
    #[must_use]
    pub fn options(&self) -> Vec<(&'static str, &str)> {
        let size = self.size.as_deref().map(|size| ("size", size));
        let inodes = self.inodes.as_deref().map(|inodes| ("nr_inodes", inodes));
        [Some(("mode", "0755")), size, inodes].into_iter().flatten().collect()
    }
}

/// A size as tmpfs takes it, unless it would leave no room for anything.
fn size(value: &str) -> Result<String> {
    match value.strip_suffix('%') {
        Some(percent) => ensure!(
            percent.parse::<u32>().is_ok_and(|percent| (1..=100).contains(&percent)),
            "it takes 1% to 100% of the memory"
        ),
        // tmpfs takes 0 for "no limit", which fills the memory until the machine is dead.
        None => ensure!(amount(value).is_some_and(|bytes| bytes > 0), "it takes a size such as 512m, 4g or 80%"),
    }
    Ok(value.into())
}

/// A number as tmpfs takes it.
fn number(value: &str) -> Result<String> {
    ensure!(amount(value).is_some(), "it takes a number, with k, m or g for thousands of 1,024");
    Ok(value.into())
}

/// What the kernel makes of a decimal number with a unit (`memparse`, lib/cmdline.c), if tmpfs does not refuse so many
/// (`BOGO_INODE_SIZE`, mm/shmem.c): a mount that is refused is a boot that fails.
fn amount(value: &str) -> Option<u64> {
    let digits = value.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(value);
    let unit = match value.strip_prefix(digits)?.to_ascii_lowercase().as_str() {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => 1,
    };
    // parse() alone would take a sign
    let number: u64 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    number.checked_mul(unit).filter(|amount| *amount <= u64::MAX >> 10)
}

/// The known word that takes the fewest changes to get to.
fn nearest(name: &str) -> &'static str {
    WORDS.iter().map(|(word, _)| *word).min_by_key(|word| strsim::levenshtein(word, name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> (Options, Vec<String>) {
        parse(&Words::parse(line.as_bytes()))
    }

    #[test]
    fn every_word_is_understood() {
        let line = "quiet firn.store=/other.squashfs firn.root.size=80% firn.root.inodes=0 firn.rw-store.size=4G \
                    firn.rw-store.inodes=100k firn.register=required firn.log=warn";
        let options = Options {
            image: Some("/other.squashfs".into()),
            root: Limits { size: Some("80%".into()), inodes: Some("0".into()) },
            rw_store: Limits { size: Some("4G".into()), inodes: Some("100k".into()) },
            register: Register::Required,
            log: Some(LevelFilter::Warn),
        };
        assert_eq!(parsed(line), (options, vec![]));
        for (word, _) in WORDS {
            assert!(line.contains(&format!(" {word}=")), "{word}");
        }
    }

    #[test]
    fn the_last_one_wins() {
        let (options, _) = parsed("firn.register=none firn.register=required");
        assert_eq!(options.register, Register::Required);
    }

    #[test]
    fn what_makes_no_sense_is_a_warning_and_changes_nothing() {
        for (line, expected) in [
            ("firn.registr=none", "firn.registr=none: there is no such word; did you mean firn.register?"),
            ("firn.rwstore.size=1g", "did you mean firn.rw-store.size?"),
            ("firn.register=maybe", "it takes load, required or none"),
            ("firn.register", "firn.register: it has no value"),
            ("firn.root.size=0", "such as 512m, 4g or 80%"),
            ("firn.root.size=lots", "such as 512m, 4g or 80%"),
            ("firn.root.size=101%", "1% to 100%"),
            ("firn.root.size=,uid=0", "such as 512m"),
            ("firn.root.inodes=-1", "it takes a number"),
            ("firn.root.inodes=+1", "it takes a number"),
            ("firn.rw-store.inodes=", "it takes a number"),
            ("firn.rw-store.inodes=999999999999g", "it takes a number"),
            ("firn.rw-store.inodes=18446744073709551615", "it takes a number"),
            ("firn.rw-store.size=99999999999999999999", "such as 512m"),
            ("firn.store=image", "absolute path"),
            ("firn.log=loud", "off, error, warn or info"),
        ] {
            let (options, warnings) = parsed(line);
            assert_eq!(options, Options::default(), "{line}");
            assert!(warnings.len() == 1 && warnings[0].contains(expected), "{line}: {warnings:?}");
        }
        assert_eq!(parsed("rd.debug firn=1 firnx.y=2 initrd=firn.register").1, [""; 0]);
    }

    #[test]
    fn limits_are_options_of_a_tmpfs() {
        let limits = Limits { size: Some("4g".into()), inodes: None };
        assert_eq!(limits.options(), [("mode", "0755"), ("size", "4g")]);
        assert_eq!(Limits::default().options(), [("mode", "0755")]);
    }
}
