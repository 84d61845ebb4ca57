//! Which system to start.

use super::cmdline::Words;
use super::root::Root;
use super::store::NewRoot;
use anyhow::{Context, Result, bail};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The system that this boot starts.
#[derive(Debug, PartialEq, Eq)]
pub struct System {
    /// Absolute path of its init in the new root.
    pub init: String,
    /// The toplevel whose init that is, or else the default system's: a path in the store. Without one there is nothing
    /// to set a system profile to.
    pub toplevel: Option<String>,
}

/// Finds the init that `init=` names (the last one wins) or else the plan's, and makes sure that it can be executed, while
/// there is still an initramfs to say so from.
///
/// # Errors
///
/// No init asked for, none there, one that cannot be executed, or a system whose init expects more of stage 1 than this
/// firn-init does.
pub fn find(root: &NewRoot, words: &Words, default: Option<&str>) -> Result<System> {
    let asked = words.value("init").filter(|init| !init.is_empty());
    let init = asked.or(default).context(
        "no init: the ramdisk has no plan and so no default system; put init=<toplevel>/init on the command line",
    )?;
    check_executable(root, init).with_context(|| format!("looking for the init {init}; {}", systems_in_image(root)))?;
    let own = toplevel_of(root, init);
    match &own {
        Some(toplevel) => {
            // The builder has looked at the plan's; here it would be a whole block of the image to decompress.
            if default != Some(init) {
                check_classic(root, toplevel)?;
            }
            log::info!("Starting {init} of the system {toplevel}");
        }
        None => log::warn!("Starting {init}, which belongs to no NixOS system"),
    }
    let toplevel = own.or_else(|| toplevel_of(root, default?));
    Ok(System { init: init.to_owned(), toplevel })
}

fn check_executable(root: &Root, init: &str) -> Result<()> {
    if !init.starts_with('/') {
        bail!("the path is relative; init= takes an absolute one");
    }
    let file = open(root, init, OFlags::PATH)?;
    let status = fstat(&file)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => bail!("it is a directory; did you mean {init}/init?"),
        _ => bail!("it is no regular file"),
    }
    if status.st_mode & 0o111 == 0 {
        bail!("it is not executable (mode {:o})", status.st_mode & 0o7777);
    }
    Ok(())
}

/// Makes sure that a system starts by a script that does all of stage 2 itself. The others expect work of stage 1 between
/// mounting and their init, which is systemd (nixpkgs, `system/activation/top-level.nix`).
fn check_classic(root: &Root, toplevel: &str) -> Result<()> {
    let mut start = [0; 2];
    let init = open(root, &format!("{toplevel}/init"), OFlags::RDONLY)?;
    let length = rustix::io::read(&init, &mut start).with_context(|| format!("reading {toplevel}/init"))?;
    let made_for = match (open(root, &format!("{toplevel}/prepare-root"), OFlags::PATH).is_ok(), start.get(..length)) {
        (true, _) => "a systemd stage 1 (it has prepare-root)",
        (false, Some(b"#!")) => return Ok(()),
        (false, _) => "nixos-init (its init is a program and not a script)",
    };
    bail!(
        "{toplevel} is made for {made_for}, which firn-init does not stand in for yet; build the system with \
         boot.initrd.systemd.enable = false"
    )
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
