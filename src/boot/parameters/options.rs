//! The options for stage 1 on the kernel command line: firn's own parameters (described in [`PARAMETERS`]), the parameters of NixOS'
//! scripted stage 1 (nixpkgs, `system/boot/stage-1-init.sh`), and those of dracut (`man 7 dracut.cmdline`) that have the same effect.
//!
//! An unknown parameter of firn or an invalid value is a warning. It never fails the boot, since there may be nobody to correct it.

use crate::boot::console::kmsg;
use crate::boot::kernel::memory::Memory;
use crate::boot::parameters::limits::Limits;
use crate::boot::parameters::values::{Action, OnFailure, flag, host_id, number, size};
use crate::contract::parameters::{LONGEST_LINE, PARAMETERS, PREFIX};
use crate::contract::plan::MAX_IMAGES;
use crate::formats::cmdline::CommandLine;
use crate::formats::secrets;
use anyhow::{Context, Result, anyhow, bail, ensure};
use log::LevelFilter;

/// Reads the kernel command line.
///
/// # Errors
///
/// `/proc/cmdline` cannot be read.
pub fn read() -> Result<CommandLine> {
    let line = std::fs::read("/proc/cmdline").context("reading /proc/cmdline")?;
    let cmdline = CommandLine::parse(&line);
    log::info!("Kernel command line: {}", secrets::hidden(&cmdline));
    if may_be_cut(&line) {
        log::warn!(
            "The kernel command line was cut, or just fits: it has {LONGEST_LINE} bytes, as many as the kernel keeps. Parameters at its end \
             may be missing: remove others"
        );
    }
    Ok(cmdline)
}

/// Whether the kernel may have cut off the end of the command line, as `/proc/cmdline` shows it.
fn may_be_cut(line: &[u8]) -> bool {
    line.strip_suffix(b"\n").unwrap_or(line).len() >= LONGEST_LINE
}

/// The options for stage 1. Without a parameter, each has its default.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Paths of the store images in the ramdisk, the lowest layer first. They replace the images of the plan.
    pub images: Vec<String>,
    /// The SHA-256 of each of these images, separated by commas.
    pub digests: Option<String>,
    /// Modules to load in addition to the plan's: names or aliases.
    pub modules: Vec<String>,
    /// The disks that may be the root.
    pub persistence: Persistence,
    /// Limits of the root tmpfs.
    pub root: Limits,
    /// Limits of the tmpfs with the writable store layer.
    pub rw_store: Limits,
    /// The way to make the Nix database.
    pub register: Register,
    /// Whether an overlay for `/etc` is writable.
    pub etc: Etc,
    /// Whether the SHA-256 of each image is compared with the plan before the mount.
    pub verify: bool,
    /// The host id of this machine.
    pub host_id: Option<u32>,
    /// The most detailed level of the messages in the log.
    pub log: Option<LevelFilter>,
    /// Whether all messages are logged and shown on the consoles.
    pub trace: bool,
    /// The places where the boot stops and shows a menu.
    pub stops: Vec<Stop>,
    /// Whether the menu offers a shell.
    pub shell: bool,
    /// The action after a failed boot. Without it, the kernel's `panic=` decides.
    pub on_failure: Option<OnFailure>,
}

/// A place where the boot can stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// At the start: only /proc, /sys, /dev and /run are mounted.
    Start,
    /// After the modules and devices, before the root.
    Devices,
    /// Before the activation and the hand-over.
    Mounts,
}

/// The disks that may be the root, if the command line names one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// An empty one, and one that was the root of a system that runs from memory.
    #[default]
    Own,
    /// Also one with another system.
    Any,
}

/// The way to make the Nix database.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    /// Copy the database of the ramdisk. In a ramdisk without a database, run the system's Nix. After an error the boot goes on.
    #[default]
    Prebuilt,
    /// Run the system's Nix. After an error the boot goes on.
    Load,
    /// As `Prebuilt`, but an error fails the boot.
    Required,
    /// Make no database.
    None,
}

/// Whether an overlay for `/etc` is writable. NixOS has this setting only inside of its own ramdisk, where firn cannot read it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Etc {
    /// Writable. Changes are stored in the root file system.
    #[default]
    Mutable,
    /// Read-only.
    Immutable,
}

/// Reads the options, logs warnings about invalid parameters, and sets the level of the log. Limits that are not given follow from the
/// `memory`.
pub fn apply(cmdline: &CommandLine, memory: Option<&Memory>) -> Options {
    let (mut options, warnings) = parse(cmdline);
    if let Some(memory) = memory {
        Limits::complete(&mut options.root, &mut options.rw_store, memory);
    }
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

/// A message on a parameter that has no effect here, for the person who expects one.
fn note(name: &str) -> Option<String> {
    match name {
        "rd.break" | "rd.debug" | "rd.driver.blacklist" | "rd.shell" => None,
        "copytoram" => Some("copytoram has no effect: firn always runs from memory".into()),
        _ if name.starts_with("rd.") => Some(format!("{name} is a parameter for dracut and has no effect")),
        _ => None,
    }
}

/// The options, and a warning for each invalid parameter.
pub fn parse(cmdline: &CommandLine) -> (Options, Vec<String>) {
    let mut options = Options::default();
    let mut warnings = Vec::new();
    for (name, value) in cmdline.iter() {
        // To ignore this one would be to mount an image that is not verified.
        let value = value.or((name == "firn.store.sha256").then_some(""));
        let result = match value {
            _ if !name.starts_with(PREFIX) => options.set_foreign(name, value),
            Some(value) => options.set(name, value),
            None => Err(anyhow!("it needs a value")),
        };
        if let Err(error) = result {
            let parameter = secrets::shown(name, value);
            warnings.push(format!("Ignoring the kernel parameter {}: {error:#}", parameter.trim_matches('"')));
        }
    }
    (options, warnings)
}

impl Options {
    /// Sets an option from one of firn's own parameters.
    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "firn.store" => {
                let paths: Vec<_> = value.split(',').map(String::from).collect();
                ensure!(paths.iter().all(|path| path.starts_with('/')), "it needs absolute paths in the ramdisk");
                ensure!(paths.len() <= MAX_IMAGES, "it can have at most {MAX_IMAGES} paths");
                self.images = paths;
            }
            // An invalid value fails the step "plan".
            "firn.store.sha256" => self.digests = Some(value.into()),
            "firn.modules" => self.modules.extend(value.split(',').filter(|name| !name.is_empty()).map(Into::into)),
            "firn.modules.skip" => {} // The loader of the modules reads this parameter.
            "firn.persistence" => {
                self.persistence = match value {
                    "own" => Persistence::Own,
                    "any" => Persistence::Any,
                    _ => bail!("the value must be own or any"),
                }
            }
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
                    _ => bail!("the value must be prebuilt, load, required or none"),
                }
            }
            "firn.etc" => {
                self.etc = match value {
                    "mutable" => Etc::Mutable,
                    "immutable" => Etc::Immutable,
                    _ => bail!("the value must be mutable or immutable"),
                }
            }
            "firn.verify" => {
                self.verify = match value {
                    "size" => false,
                    "full" => true,
                    _ => bail!("the value must be size or full"),
                }
            }
            "firn.hostid" => self.host_id = Some(host_id(value)?),
            "firn.on_failure" => self.on_failure = Some(OnFailure::parse(value)?),
            "firn.log" => {
                self.log = Some(value.parse().ok().context("the value must be off, error, warn, info or debug")?);
            }
            _ => bail!("there is no such parameter; did you mean {}?", nearest(name)),
        }
        Ok(())
    }

    /// Sets an option from a parameter of NixOS or dracut. Ignores all others: they belong to the kernel or to the system.
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

    /// Adds a stop. It also allows a shell: a stop is for a look at the machine.
    fn stop(&mut self, at: Stop) {
        self.stops.push(at);
        self.shell = true;
    }
}

/// The known parameter with the smallest edit distance.
fn nearest(name: &str) -> &'static str {
    PARAMETERS.iter().map(|(known, _)| *known).min_by_key(|known| strsim::levenshtein(known, name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> (Options, Vec<String>) {
        parse(&CommandLine::parse(line.as_bytes()))
    }

    #[test]
    fn every_parameter_is_understood() {
        let line = "quiet firn.store=/other.squashfs,/more.erofs firn.modules=a,,b firn.modules.skip=x firn.modules=c \
                    firn.persistence=any firn.root.size=80% firn.root.inodes=0 firn.rw-store.size=4G firn.rw-store.inodes=100k \
                    firn.register=required firn.etc=immutable firn.verify=full firn.hostid=0000beef \
                    firn.on_failure=reboot,30 firn.log=warn firn.store.sha256=0a,1b";
        let options = Options {
            images: vec!["/other.squashfs".into(), "/more.erofs".into()],
            digests: Some("0a,1b".into()),
            modules: ["a", "b", "c"].map(Into::into).into(),
            persistence: Persistence::Any,
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
        for (name, _) in PARAMETERS {
            assert!(line.contains(&format!(" {name}=")), "{name}");
        }
    }

    #[test]
    fn a_1_a_command_line_of_the_maximum_length_may_be_cut() {
        for (length, expected) in [(0, false), (2046, false), (2047, true)] {
            assert_eq!(may_be_cut(&[&vec![b'x'; length][..], b"\n"].concat()), expected, "{length}");
        }
    }

    #[test]
    fn the_last_one_wins() {
        let (options, _) = parsed("firn.register=none firn.register=prebuilt");
        assert_eq!(options.register, Register::Prebuilt);
    }

    #[test]
    fn an_invalid_parameter_is_a_warning_and_changes_nothing() {
        for (line, expected) in [
            ("firn.registr=none", "firn.registr=none: there is no such parameter; did you mean firn.register?"),
            ("firn.rwstore.size=1g", "did you mean firn.rw-store.size?"),
            ("firn.register=maybe", "the value must be prebuilt, load, required or none"),
            ("firn.register", "firn.register: it needs a value"),
            ("firn.root.size=0", "such as 512m, 4g or 80%"),
            ("firn.root.size=lots", "such as 512m, 4g or 80%"),
            ("firn.root.size=101%", "1% to 100%"),
            ("firn.root.size=,uid=0", "such as 512m"),
            ("firn.root.inodes=-1", "it must be a number"),
            ("firn.root.inodes=+1", "it must be a number"),
            ("firn.rw-store.inodes=", "it must be a number"),
            ("firn.rw-store.inodes=999999999999g", "it must be a number"),
            ("firn.rw-store.inodes=18446744073709551615", "it must be a number"),
            ("firn.rw-store.size=99999999999999999999", "such as 512m"),
            ("firn.store=/image,other", "absolute paths"),
            (&format!("firn.store={}", ["/image"; MAX_IMAGES + 1].join(",")), "at most 64 paths"),
            ("firn.root.size=\"80 %\"", "Ignoring the kernel parameter firn.root.size=80 %: "),
            ("firn.token=x", "Ignoring the kernel parameter firn.token=(hidden): there is no such parameter"),
            ("firn.persistence=yes", "the value must be own or any"),
            ("firn.etc=ro", "the value must be mutable or immutable"),
            ("firn.log=loud", "off, error, warn, info or debug"),
            ("firn.verify=maybe", "size or full"),
            ("firn.hostid=1", "eight hexadecimal digits"),
            ("firn.on_failure=restart", "menu, panic, poweroff or reboot"),
            ("boot.trace=loud", "use it without a value, or with 1 or 0"),
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
    fn parameters_of_nixos_and_dracut() {
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
}
