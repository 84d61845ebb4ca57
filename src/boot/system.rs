//! The system to start: its init, its toplevel, its kind.

use crate::boot::kernel::file;
use crate::boot::plan::BootPlan;
use crate::boot::store::NewRoot;
use crate::contract::kind::Kind;
use crate::contract::nixos_init::{self, Config, EtcOverlay};
use crate::contract::plan::Start;
use crate::formats::cmdline::CommandLine;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The system that this boot starts.
#[derive(Debug)]
pub struct System {
    /// Absolute path of its init in the new root.
    pub init: String,
    /// The toplevel of this init, or else of the default system: a store path. The system profile leads to it.
    pub toplevel: Option<String>,
    /// Its kind, which decides the steps of stage 1 before the init.
    pub kind: Kind,
    /// The configuration of nixos-init in its bootspec; empty if it has none.
    pub config: Config,
}

/// Finds the init that `init=` names (the last one wins), or else the init of the plan, and the kind of its system. Checks that the
/// init can be executed, as long as the rescue menu can still show an error.
///
/// # Errors
///
/// No init is given, it does not exist, it cannot be executed, or the configuration of its system is missing or invalid.
pub fn find(root: &NewRoot, cmdline: &CommandLine, plan: &BootPlan) -> Result<System> {
    let default = plan.init.as_deref();
    let asked = cmdline.value("init").filter(|init| !init.is_empty());
    let init = asked.or(default).context(
        "no init is given: the ramdisk has no plan, so there is no default system; add init=TOPLEVEL/init to the kernel command \
         line",
    )?;
    root.inside(|| {
        let of_default = of_default(init, default);
        let init = of_default.as_deref().unwrap_or(init);
        // With the values of the plan, the init is not read: a read would decompress a whole block of the image.
        let known = plan.start.as_ref().filter(|_| default == Some(init));
        find_inside(init, known, default)
    })
}

/// Links to the toplevel of the running system. Stage 1 or the system itself makes them later in the boot. On a disk the profile may be
/// that of an earlier boot, with a system that is in no store image.
const LINKS_TO_TOPLEVEL: [&str; 3] = ["/nix/var/nix/profiles/system/", "/run/current-system/", "/run/booted-system/"];

/// The same init of the default system, for an init below a link to the toplevel that leads nowhere yet.
fn of_default(init: &str, default: Option<&str>) -> Option<String> {
    let (link, rest) = LINKS_TO_TOPLEVEL.iter().find_map(|link| Some((link, init.strip_prefix(link)?)))?;
    let toplevel = default?.strip_suffix("/init").filter(|_| fs::metadata(link).is_err())?;
    log::info!("{link} leads nowhere yet; starting the default system, {toplevel}");
    Some(format!("{toplevel}/{rest}"))
}

fn find_inside(init: &str, known: Option<&Start>, default: Option<&str>) -> Result<System> {
    let toplevel = toplevel_of(init);
    let start = executable(init, toplevel.as_deref(), known)
        .with_context(|| format!("looking for the init {init}; {}", systems_in_image()))?;
    log::info!("Starting {init} {}", start.kind.reason());
    let config = match (&toplevel, start.kind) {
        (Some(toplevel), Kind::PrepareRoot | Kind::NixosInit) => config(toplevel, start.kind)?,
        _ => Config::default(),
    };
    let toplevel = toplevel.or_else(|| toplevel_of(default?));
    Ok(System { init: init.to_owned(), toplevel, kind: start.kind, config })
}

/// Checks that the kernel can execute `init`. Returns the way to start it.
fn executable(init: &str, toplevel: Option<&str>, known: Option<&Start>) -> Result<Start> {
    if !init.starts_with('/') {
        bail!("the path is relative; init= needs an absolute path");
    }
    check_executable(init)?;
    let start = known.cloned().map_or_else(|| read_start(init, toplevel), Ok)?;
    if let Some(interpreter) = &start.interpreter {
        check_executable(interpreter)
            .with_context(|| format!("its interpreter is {interpreter}; pack the whole closure of the system"))?;
    }
    Ok(start)
}

fn read_start(init: &str, toplevel: Option<&str>) -> Result<Start> {
    let mut start = Vec::new();
    File::open(init)?.take(SCRIPT_START).read_to_end(&mut start)?;
    let has_prepare_root = |toplevel| Path::new(&format!("{toplevel}/prepare-root")).exists();
    let kind = toplevel.map_or(Kind::None, |toplevel| Kind::of_toplevel(has_prepare_root(toplevel), &start));
    Ok(Start { kind, interpreter: Kind::interpreter(&start) })
}

/// The length of the start of a script that the kernel reads to find the interpreter, bytes (`BINPRM_BUF_SIZE`, include/uapi/linux/binfmts.h).
const SCRIPT_START: u64 = 256;

fn check_executable(path: &str) -> Result<()> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        bail!("it is a directory; did you mean {path}/init?");
    }
    if !found.is_file() {
        bail!("it is not a regular file");
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o111 == 0 {
        bail!("it is not executable (mode {mode:o})");
    }
    Ok(())
}

/// The configuration of nixos-init in the bootspec of a toplevel. A system of the kind nixos-init needs it. For a system of another
/// kind, it names the two parts of an overlay for `/etc`.
fn config(toplevel: &str, kind: Kind) -> Result<Config> {
    let path = format!("{toplevel}/boot.json");
    let json = match file::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => "{}".into(),
        other => other.with_context(|| format!("reading {path}"))?,
    };
    let (config, unknown) = Config::parse(&json).with_context(|| format!("reading {path}"))?;
    if !unknown.is_empty() {
        log::warn!("{path} has settings that this firn does not know and ignores: {}", unknown.join(", "));
    }
    if config.is_none() && kind == Kind::NixosInit {
        bail!("{}", nixos_init::missing(toplevel));
    }
    let mut config = config.unwrap_or_default();
    config.etc_overlay = config.etc_overlay.or_else(|| EtcOverlay::linked(Path::new(toplevel)));
    Ok(config)
}

/// The toplevel of `init` with symlinks resolved, if it is the init of a NixOS system.
fn toplevel_of(init: &str) -> Option<String> {
    let directory = Path::new(init.strip_suffix("/init")?);
    fs::metadata(directory.join("nixos-version")).ok()?;
    directory.canonicalize().ok()?.into_os_string().into_string().ok()
}

/// The systems in the store image, as the end of a sentence, for a person who mistyped the path.
fn systems_in_image() -> String {
    let mut systems: Vec<_> = fs::read_dir("/nix/store")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("nixos-version").exists())
        .map(|entry| format!("init={}", entry.path().join("init").display()))
        .collect();
    systems.sort();
    match systems.as_slice() {
        [] => "the store image contains no NixOS system".into(),
        systems => format!("the store image contains {}", systems.join(" ")),
    }
}
