//! Which system to start.

use crate::boot::plan::Plan;
use crate::boot::root::Root;
use crate::boot::store::NewRoot;
use crate::contract::kind::Kind;
use crate::contract::nixos_init::{self, Config};
use crate::contract::plan::Start;
use crate::formats::cmdline::Words;
use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The system that this boot starts.
#[derive(Debug)]
pub struct System {
    /// Absolute path of its init in the new root.
    pub init: String,
    /// The toplevel whose init that is, or else the default system's: a path in the store. Without one there is nothing
    /// to set a system profile to.
    pub toplevel: Option<String>,
    /// What is to be done before its init.
    pub kind: Kind,
    /// What its bootspec asks of nixos-init; nothing for a kind of system that knows no nixos-init.
    pub config: Config,
}

/// Finds the init that `init=` names (the last one wins) or else the plan's, and what it expects of stage 1. Makes sure that
/// it can be executed, while there is still an initramfs to say so from.
///
/// # Errors
///
/// No init asked for, none there, one that cannot be executed, or a system that does not say what it expects.
pub fn find(root: &NewRoot, words: &Words, plan: &Plan) -> Result<System> {
    let default = plan.init.as_deref();
    let asked = words.value("init").filter(|init| !init.is_empty());
    let init = asked.or(default).context(
        "no init: the ramdisk has no plan and so no default system; put init=<toplevel>/init on the command line",
    )?;
    let own = toplevel_of(root, init);
    // What the builder wrote down need not be read: that would decompress a whole block of the image.
    let known = plan.start.as_ref().filter(|_| default == Some(init));
    let start = executable(root, init, own.as_deref(), known)
        .with_context(|| format!("looking for the init {init}; {}", systems_in_image(root)))?;
    log::info!("Starting {init} {}", start.kind.reason());
    let config = match (&own, start.kind) {
        (Some(toplevel), Kind::PrepareRoot | Kind::NixosInit) => config(root, toplevel, start.kind)?,
        _ => Config::default(),
    };
    let toplevel = own.or_else(|| toplevel_of(root, default?));
    Ok(System { init: init.to_owned(), toplevel, kind: start.kind, config })
}

/// Makes sure that the kernel can execute `init`, and tells how it is started.
fn executable(root: &Root, init: &str, toplevel: Option<&str>, known: Option<&Start>) -> Result<Start> {
    if !init.starts_with('/') {
        bail!("the path is relative; init= takes an absolute one");
    }
    check_executable(root, init)?;
    let start = known.cloned().map_or_else(|| read_start(root, init, toplevel), Ok)?;
    if let Some(interpreter) = &start.interpreter {
        check_executable(root, interpreter)
            .with_context(|| format!("it is a script for {interpreter}; pack the whole closure of the system"))?;
    }
    Ok(start)
}

fn read_start(root: &Root, init: &str, toplevel: Option<&str>) -> Result<Start> {
    let mut start = Vec::new();
    File::from(open(root, init, OFlags::RDONLY)?).take(SCRIPT_START).read_to_end(&mut start)?;
    let kind = toplevel.map_or(Kind::None, |toplevel| {
        Kind::of_toplevel(open(root, &format!("{toplevel}/prepare-root"), OFlags::PATH).is_ok(), &start)
    });
    Ok(Start { kind, interpreter: Kind::interpreter(&start) })
}

/// How much of a script the kernel reads to find its interpreter, bytes (`BINPRM_BUF_SIZE`, include/uapi/linux/binfmts.h).
const SCRIPT_START: u64 = 256;

fn check_executable(root: &Root, path: &str) -> Result<()> {
    let status = fstat(open(root, path, OFlags::PATH)?)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => bail!("it is a directory; did you mean {path}/init?"),
        _ => bail!("it is no regular file"),
    }
    if status.st_mode & 0o111 == 0 {
        bail!("it is not executable (mode {:o})", status.st_mode & 0o7777);
    }
    Ok(())
}

/// What the bootspec of a toplevel asks of nixos-init. A system made for nixos-init has to have it; of others it says where
/// the parts of `/etc` are, if that is an overlay.
fn config(root: &Root, toplevel: &str, kind: Kind) -> Result<Config> {
    let path = format!("{toplevel}/boot.json");
    let json = match open(root, &path, OFlags::RDONLY) {
        Ok(file) => std::io::read_to_string(File::from(file)).with_context(|| format!("reading {path}"))?,
        Err(Errno::NOENT) => "{}".into(),
        Err(errno) => return Err(errno).with_context(|| format!("opening {path}")),
    };
    let (config, unknown) = Config::parse(&json).with_context(|| format!("reading {path}"))?;
    if !unknown.is_empty() {
        log::warn!("{path} asks for what this firn does not know: {}; it is left out", unknown.join(", "));
    }
    if config.is_none() && kind == Kind::NixosInit {
        bail!("{}", nixos_init::missing(toplevel));
    }
    Ok(config.unwrap_or_default())
}

/// The toplevel that `init` lies in, as the path in the store that symlinks lead to, if it is one of NixOS.
fn toplevel_of(root: &Root, init: &str) -> Option<String> {
    let directory = init.strip_suffix("/init")?;
    open(root, &format!("{directory}/nixos-version"), OFlags::PATH).ok()?;
    let directory = open(root, directory, OFlags::PATH).ok()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
    root.after_switch(&path)?.into_os_string().into_string().ok()
}

/// Opens a path of the new root; symlinks lead where they will after the switch (`RESOLVE_IN_ROOT`, openat2(2), kernel 5.6).
fn open(root: &Root, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(&root.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
}

/// A sentence on the systems that could be started, for whoever mistyped one.
fn systems_in_image(root: &Root) -> String {
    let store = root.at("/nix/store");
    let mut systems: Vec<_> = fs::read_dir(&store)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("nixos-version").exists())
        .map(|entry| format!("init={}", Path::new("/nix/store").join(entry.file_name()).join("init").display()))
        .collect();
    systems.sort();
    match systems.as_slice() {
        [] => "the store image holds no NixOS system".into(),
        systems => format!("the store image holds {}", systems.join(" ")),
    }
}
