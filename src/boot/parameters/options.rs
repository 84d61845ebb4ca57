//! What the kernel command line asks of stage 1: firn's own words ([`crate::contract::plan::PARAMETERS`] describes them), those of NixOS'
//! scripted stage 1 (nixpkgs, `system/boot/stage-1-init.sh`), and of dracut's (`man 7 dracut.cmdline`) those that ask for
//! the same.
//!
//! A word of firn's that is unknown, or a value that makes no sense, is a warning and never a boot that fails: nobody is
//! there to correct it.

use crate::boot::console::kmsg;
use crate::boot::parameters::values::{Action, OnFailure, flag, host_id, number, size};
use crate::contract::parameters::{PARAMETERS, PREFIX};
use crate::contract::plan::MAX_IMAGES;
use crate::formats::cmdline::CommandLine;
use anyhow::{Context, Result, anyhow, bail, ensure};
use log::LevelFilter;

/// Reads the command line that the kernel was started with.
///
/// # Errors
///
/// `/proc/cmdline` that cannot be read.
pub fn read() -> Result<CommandLine> {
    let line = std::fs::read("/proc/cmdline").context("reading /proc/cmdline")?;
    log::info!("Command line: {}", String::from_utf8_lossy(&line).trim());
    Ok(CommandLine::parse(&line))
}

/// What the administrator asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The store images in the ramdisk, in place of the plan's, the lowest layer first.
    pub images: Vec<String>,
    /// Modules to load beside the plan's: names or aliases.
    pub modules: Vec<String>,
    /// Limits of the tmpfs that is the root.
    pub root: Limits,
    /// Limits of the tmpfs that is the store's upper layer.
    pub rw_store: Limits,
    /// What becomes of the Nix database.
    pub register: Register,
    /// Whether an `/etc` that is an overlay can be written to.
    pub etc: Etc,
    /// Whether the whole image is read and compared with its SHA-256 before it is mounted.
    pub verify: bool,
    /// The host id of this machine.
    pub host_id: Option<u32>,
    /// What is written to the log.
    pub log: Option<LevelFilter>,
    /// Whether everything is logged and shown on the consoles.
    pub trace: bool,
    /// Where the boot stops and asks what to do.
    pub stops: Vec<Stop>,
    /// Whether a boot that fails offers a shell.
    pub shell: bool,
    /// What a boot that fails does; if nothing is asked for, the kernel's `panic=` decides.
    pub on_failure: Option<OnFailure>,
}

/// A place to look around at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Before anything is loaded or mounted, except for /proc, /sys, /dev and /run.
    Start,
    /// After the modules, before the root.
    Devices,
    /// Before the activation and the hand-over.
    Mounts,
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
    /// By the database of the ramdisk, or the system's Nix if there is none; the boot goes on if it fails.
    #[default]
    Prebuilt,
    /// By the system's Nix; the boot goes on if it fails.
    Load,
    /// By either, or the boot fails.
    Required,
    /// Not at all.
    None,
}

/// Whether `/etc` can be written to, where it is an overlay. NixOS compiles it into its own initrd and says it nowhere else.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Etc {
    /// What is written lies in the root's memory.
    #[default]
    Mutable,
    /// It stays as the system was built.
    Immutable,
}

/// Finds firn's words, warns of those that it does not understand, and sets the level of the log.
pub fn apply(cmdline: &CommandLine) -> Options {
    let (options, warnings) = parse(cmdline);
    if options.trace {
        kmsg::show_all();
    } else if let Some(level) = options.log {
        log::set_max_level(level);
    }
    for note in cmdline.iter().filter_map(|(name, _)| note(name)) {
        log::info!("{note}");
    }
    for warning in warnings {
        log::warn!("{warning}");
    }
    options
}

/// What to say of a word that does nothing here, to who put it there in the hope that it does.
fn note(name: &str) -> Option<String> {
    match name {
        "rd.break" | "rd.debug" | "rd.driver.blacklist" | "rd.shell" => None,
        "copytoram" => Some("copytoram: the store image is in memory already".into()),
        _ if name.starts_with("rd.") => Some(format!("{name}: a word for another stage 1, which does nothing here")),
        _ => None,
    }
}

/// The options, and a sentence for each word that is none.
pub fn parse(cmdline: &CommandLine) -> (Options, Vec<String>) {
    let mut options = Options::default();
    let mut warnings = Vec::new();
    for (name, value) in cmdline.iter() {
        let result = match value {
            _ if !name.starts_with(PREFIX) => options.set_foreign(name, value),
            Some(value) => options.set(name, value),
            None => Err(anyhow!("it has no value")),
        };
        if let Err(error) = result {
            let word = value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}"));
            warnings.push(format!("Left out of the kernel command line: {word}: {error:#}"));
        }
    }
    (options, warnings)
}

impl Options {
    /// A word of firn's own.
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "firn.store" => {
                let paths: Vec<_> = value.split(',').map(String::from).collect();
                ensure!(paths.iter().all(|path| path.starts_with('/')), "it takes absolute paths in the ramdisk");
                ensure!(paths.len() <= MAX_IMAGES, "it takes at most {MAX_IMAGES} paths");
                self.images = paths;
            }
            "firn.modules" => self.modules.extend(value.split(',').filter(|name| !name.is_empty()).map(Into::into)),
            "firn.modules.skip" => {} // one of several such words, which the loader knows
            "firn.root.size" => self.root.size = Some(size(value)?),
            "firn.root.inodes" => self.root.inodes = Some(number(value)?),
            "firn.rw-store.size" => self.rw_store.size = Some(size(value)?),
            "firn.rw-store.inodes" => self.rw_store.inodes = Some(number(value)?),
            "firn.register" => {
                self.register = match value {
                    "prebuilt" => Register::Prebuilt,
                    "load" => Register::Load,
                    "required" => Register::Required,
                    "none" => Register::None,
                    _ => bail!("it takes prebuilt, load, required or none"),
                }
            }
            "firn.etc" => {
                self.etc = match value {
                    "mutable" => Etc::Mutable,
                    "immutable" => Etc::Immutable,
                    _ => bail!("it takes mutable or immutable"),
                }
            }
            "firn.verify" => {
                self.verify = match value {
                    "size" => false,
                    "full" => true,
                    _ => bail!("it takes size or full"),
                }
            }
            "firn.hostid" => self.host_id = Some(host_id(value)?),
            "firn.on_failure" => self.on_failure = Some(OnFailure::parse(value)?),
            "firn.log" => self.log = Some(value.parse().ok().context("it takes off, error, warn, info or debug")?),
            _ => bail!("there is no such word; did you mean {}?", nearest(name)),
        }
        Ok(())
    }

    /// A word of NixOS' or of dracut's. Most words are neither, and everybody else's.
    fn set_foreign(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        match name {
            "boot.trace" | "debugtrace" | "rd.debug" => self.trace = flag(value)?,
            "boot.shell_on_fail" | "rd.shell" => self.shell = flag(value)?,
            "boot.panic_on_fail" | "stage1panic" => {
                self.on_failure = flag(value)?.then_some(OnFailure { action: Action::Panic, seconds: 0 });
            }
            "boot.debug1" | "debug1" => self.stop(Stop::Start),
            "boot.debug1devices" | "debug1devices" => self.stop(Stop::Devices),
            "boot.debug1mounts" | "debug1mounts" => self.stop(Stop::Mounts),
            "rd.break" => self.stop(match value {
                Some("cmdline" | "pre-udev" | "pre-trigger") => Stop::Start,
                Some("initqueue" | "pre-mount") => Stop::Devices,
                _ => Stop::Mounts,
            }),
            _ => {}
        }
        Ok(())
    }

    /// Who asks to stop there wants to look around.
    fn stop(&mut self, at: Stop) {
        self.stops.push(at);
        self.shell = true;
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

/// The known word that takes the fewest changes to get to.
fn nearest(name: &str) -> &'static str {
    PARAMETERS.iter().map(|(word, _)| *word).min_by_key(|word| strsim::levenshtein(word, name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> (Options, Vec<String>) {
        parse(&CommandLine::parse(line.as_bytes()))
    }

    #[test]
    fn every_word_is_understood() {
        let line = "quiet firn.store=/other.squashfs,/more.erofs firn.modules=a,,b firn.modules.skip=x firn.modules=c \
                    firn.root.size=80% firn.root.inodes=0 firn.rw-store.size=4G firn.rw-store.inodes=100k \
                    firn.register=required firn.etc=immutable firn.verify=full firn.hostid=0000beef \
                    firn.on_failure=reboot,30 firn.log=warn";
        let options = Options {
            images: vec!["/other.squashfs".into(), "/more.erofs".into()],
            modules: ["a", "b", "c"].map(Into::into).into(),
            root: Limits { size: Some("80%".into()), inodes: Some("0".into()) },
            rw_store: Limits { size: Some("4G".into()), inodes: Some("100k".into()) },
            register: Register::Required,
            etc: Etc::Immutable,
            verify: true,
            host_id: Some(0xbeef),
            on_failure: Some(OnFailure { action: Action::Reboot, seconds: 30 }),
            log: Some(LevelFilter::Warn),
            ..Options::default()
        };
        assert_eq!(parsed(line), (options, vec![]));
        for (word, _) in PARAMETERS {
            assert!(line.contains(&format!(" {word}=")), "{word}");
        }
    }

    #[test]
    fn the_last_one_wins() {
        let (options, _) = parsed("firn.register=none firn.register=prebuilt");
        assert_eq!(options.register, Register::Prebuilt);
    }

    #[test]
    fn what_makes_no_sense_is_a_warning_and_changes_nothing() {
        for (line, expected) in [
            ("firn.registr=none", "firn.registr=none: there is no such word; did you mean firn.register?"),
            ("firn.rwstore.size=1g", "did you mean firn.rw-store.size?"),
            ("firn.register=maybe", "it takes prebuilt, load, required or none"),
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
            ("firn.store=/image,other", "absolute paths"),
            ("firn.store=/1,/2,/3,/4,/5,/6,/7,/8,/9,/10,/11,/12,/13,/14,/15,/16", "at most 15 paths"),
            ("firn.etc=ro", "it takes mutable or immutable"),
            ("firn.log=loud", "off, error, warn, info or debug"),
            ("firn.verify=maybe", "size or full"),
            ("firn.hostid=1", "eight hexadecimal digits"),
            ("firn.on_failure=restart", "menu, panic, poweroff or reboot"),
            ("boot.trace=loud", "it takes no value, or 1 or 0"),
        ] {
            let (options, warnings) = parsed(line);
            assert_eq!(options, Options::default(), "{line}");
            assert!(warnings.len() == 1 && warnings[0].contains(expected), "{line}: {warnings:?}");
        }
        let others =
            "root=/dev/sda1 rd.luks=0 firn=1 firnx.y=2 initrd=firn.register live.nixos.password=x boot.other copytoram";
        assert_eq!(parsed(others), (Options::default(), vec![]));
    }

    #[test]
    fn words_of_nixos_and_dracut() {
        let panic = Some(OnFailure { action: Action::Panic, seconds: 0 });
        let menu = Some(OnFailure { action: Action::Menu, seconds: 0 });
        let stop = |at| Options { stops: vec![at], shell: true, ..Options::default() };
        for (line, expected) in [
            ("boot.trace", Options { trace: true, ..Options::default() }),
            ("debugtrace", Options { trace: true, ..Options::default() }),
            ("rd.debug", Options { trace: true, ..Options::default() }),
            ("boot.shell_on_fail", Options { shell: true, ..Options::default() }),
            ("rd.shell=1", Options { shell: true, ..Options::default() }),
            ("rd.shell rd.shell=0", Options::default()),
            ("boot.panic_on_fail", Options { on_failure: panic, ..Options::default() }),
            ("stage1panic=1", Options { on_failure: panic, ..Options::default() }),
            ("stage1panic=0", Options::default()),
            ("boot.panic_on_fail firn.on_failure=menu", Options { on_failure: menu, ..Options::default() }),
            ("boot.debug1", stop(Stop::Start)),
            ("debug1", stop(Stop::Start)),
            ("boot.debug1devices", stop(Stop::Devices)),
            ("boot.debug1mounts", stop(Stop::Mounts)),
            ("rd.break", stop(Stop::Mounts)),
            ("rd.break=cmdline", stop(Stop::Start)),
            ("rd.break=pre-mount", stop(Stop::Devices)),
        ] {
            assert_eq!(parsed(line), (expected, vec![]), "{line}");
        }
    }

    #[test]
    fn limits_are_options_of_a_tmpfs() {
        let limits = Limits { size: Some("4g".into()), inodes: None };
        assert_eq!(limits.options(), [("mode", "0755"), ("size", "4g")]);
        assert_eq!(Limits::default().options(), [("mode", "0755")]);
    }
}
