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
    let init = words.value("init").or(default).context(
        "no init: the ramdisk has no plan and so no default system; put init=<toplevel>/init on the command line",
    )?;
    check_executable(root, init).with_context(|| format!("looking for the init {init}; {}", systems_in_image(root)))?;
    let toplevel = [Some(init), default].into_iter().flatten().find_map(|init| toplevel_of(root, init));
    match &toplevel {
        Some(toplevel) => log::info!("Starting {init} of the system {toplevel}"),
        None => log::warn!("Starting {init}, which belongs to no NixOS system"),
    }
    if let Some(toplevel) = toplevel_of(root, init)
        && open(root, &format!("{toplevel}/prepare-root")).is_ok()
    {
        bail!(
            "{toplevel} is made for a systemd stage 1 (it has prepare-root), which this firn-init does not stand in for yet; \
             build the system with boot.initrd.systemd.enable = false"
        );
    }
    Ok(System { init: init.to_owned(), toplevel })
}

fn check_executable(root: &Root, init: &str) -> Result<()> {
    if !init.starts_with('/') {
        bail!("the path is relative; init= takes an absolute one");
    }
    let file = open(root, init)?;
    let status = fstat(&file)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        bail!("it is no regular file");
    }
    if status.st_mode & 0o111 == 0 {
        bail!("it is not executable (mode {:o})", status.st_mode & 0o7777);
    }
    Ok(())
}

/// The toplevel that `init` lies in, as the path in the store that symlinks lead to, if it is one of NixOS.
fn toplevel_of(root: &Root, init: &str) -> Option<String> {
    let directory = init.strip_suffix("/init")?;
    open(root, &format!("{directory}/nixos-version")).ok()?;
    let directory = open(root, directory).ok()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
    root.after_switch(&path)?.into_os_string().into_string().ok()
}

/// Opens a path of the new root without access to its contents; symlinks lead where they will after the switch
/// (`RESOLVE_IN_ROOT`, openat2(2), kernel 5.6).
fn open(root: &Root, path: &str) -> Result<OwnedFd, Errno> {
    openat2(&root.directory, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
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
