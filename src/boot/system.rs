//! Which system to start.

use crate::boot::plan::Plan;
use crate::boot::store::NewRoot;
use crate::contract::kind::Kind;
use crate::contract::nixos_init::{self, Config};
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
    /// The toplevel of that init, or else of the default system: a path in the store. Without one there is no target for a system
    /// profile.
    pub toplevel: Option<String>,
    /// Its kind: what stage 1 does before its init.
    pub kind: Kind,
    /// What its bootspec asks of nixos-init; the default for a kind of system without nixos-init.
    pub config: Config,
}

/// Finds the init that `init=` names (the last one wins) or else the plan's, and what it expects of stage 1. Makes sure that
/// it can be executed, while there is still an initramfs to say so from.
///
/// # Errors
///
/// No init asked for, none there, one that cannot be executed, or a system that does not say what it expects.
pub fn find(root: &NewRoot, cmdline: &CommandLine, plan: &Plan) -> Result<System> {
    let default = plan.init.as_deref();
    let asked = cmdline.value("init").filter(|init| !init.is_empty());
    let init = asked.or(default).context(
        "no init: the ramdisk has no plan and so no default system; put init=<toplevel>/init on the command line",
    )?;
    // What the builder wrote down need not be read: that would decompress a whole block of the image.
    let known = plan.start.as_ref().filter(|_| default == Some(init));
    root.inside(|| find_inside(init, known, default))
}

fn find_inside(init: &str, known: Option<&Start>, default: Option<&str>) -> Result<System> {
    let own = toplevel_of(init);
    let start = executable(init, own.as_deref(), known)
        .with_context(|| format!("looking for the init {init}; {}", systems_in_image()))?;
    log::info!("Starting {init} {}", start.kind.reason());
    let config = match (&own, start.kind) {
        (Some(toplevel), Kind::PrepareRoot | Kind::NixosInit) => config(toplevel, start.kind)?,
        _ => Config::default(),
    };
    let toplevel = own.or_else(|| toplevel_of(default?));
    Ok(System { init: init.to_owned(), toplevel, kind: start.kind, config })
}

/// Makes sure that the kernel can execute `init`, and tells how it is started.
fn executable(init: &str, toplevel: Option<&str>, known: Option<&Start>) -> Result<Start> {
    if !init.starts_with('/') {
        bail!("the path is relative; init= needs an absolute one");
    }
    check_executable(init)?;
    let start = known.cloned().map_or_else(|| read_start(init, toplevel), Ok)?;
    if let Some(interpreter) = &start.interpreter {
        check_executable(interpreter)
            .with_context(|| format!("it is a script for {interpreter}; pack the whole closure of the system"))?;
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

/// How much of a script the kernel reads to find its interpreter, bytes (`BINPRM_BUF_SIZE`, include/uapi/linux/binfmts.h).
const SCRIPT_START: u64 = 256;

fn check_executable(path: &str) -> Result<()> {
    let found = fs::metadata(path)?;
    if found.is_dir() {
        bail!("it is a directory; did you mean {path}/init?");
    }
    if !found.is_file() {
        bail!("it is no regular file");
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o111 == 0 {
        bail!("it is not executable (mode {mode:o})");
    }
    Ok(())
}

/// What the bootspec of a toplevel asks of nixos-init. A system made for nixos-init has to have it; of others it says where
/// the parts of `/etc` are, if that is an overlay.
fn config(toplevel: &str, kind: Kind) -> Result<Config> {
    let path = format!("{toplevel}/boot.json");
    let json = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => "{}".into(),
        other => other.with_context(|| format!("reading {path}"))?,
    };
    let (config, unknown) = Config::parse(&json).with_context(|| format!("reading {path}"))?;
    if !unknown.is_empty() {
        log::warn!("{path} asks for settings that this firn does not know: {}; they are left out", unknown.join(", "));
    }
    if config.is_none() && kind == Kind::NixosInit {
        bail!("{}", nixos_init::missing(toplevel));
    }
    Ok(config.unwrap_or_default())
}

/// The toplevel of `init`, as the path in the store that symlinks lead to, if it is one of NixOS.
fn toplevel_of(init: &str) -> Option<String> {
    let directory = Path::new(init.strip_suffix("/init")?);
    fs::metadata(directory.join("nixos-version")).ok()?;
    directory.canonicalize().ok()?.into_os_string().into_string().ok()
}

/// A sentence on the systems that could be started, for a person who mistyped one.
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
        [] => "the store image holds no NixOS system".into(),
        systems => format!("the store image holds {}", systems.join(" ")),
    }
}
