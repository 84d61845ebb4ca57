//! The hand-over: the new root becomes `/`, the initramfs is emptied, the system's init takes over the process.

use crate::boot::console::kmsg;
use crate::boot::early::Early;
use crate::boot::kernel::processes;
use crate::boot::root::{enter, open_directory};
use crate::boot::start::systemd;
use crate::boot::store::NewRoot;
use crate::boot::system::System;
use crate::contract::kind::Kind;
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The process after the switch: its root is the system's.
pub struct Switched {
    init: String,
    kind: Kind,
}

/// Makes the new root `/`, as `switch_root(8)` does, and frees the memory of the initramfs.
///
/// The root is moved, not only chrooted into: otherwise the kernel refuses user namespaces for ever (`EPERM` in clone(2):
/// the caller's root is not the root of its mount namespace).
///
/// # Errors
///
/// A mount that cannot be moved. What cannot be deleted is only a warning: it costs memory and nothing else.
pub fn switch_root(root: &NewRoot, early: &Early, system: &System) -> Result<Switched> {
    processes::kill_all();
    let initramfs = open_directory("/")?;
    rustix::process::fchdir(&root.directory).context("fchdir to the new root")?;
    rustix::mount::mount_move(".", "/").context("moving the new root to /")?;
    early.detach()?;
    enter(&root.directory)?;
    empty(&initramfs);
    Ok(Switched { init: system.init.clone(), kind: system.kind })
}

/// Deletes what lies in the initramfs. The store image goes, too: the loop device holds its contents.
fn empty(initramfs: &OwnedFd) {
    match fstat(initramfs) {
        Ok(status) => delete_below(initramfs, status.st_dev),
        Err(errno) => log::warn!("Emptying the initramfs: {errno}"),
    }
}

/// Deletes everything in `directory` that lies on the same file system. By descriptor, so that no path can lead out of it.
fn delete_below(directory: &OwnedFd, device: u64) {
    let entries = match Dir::read_from(directory) {
        Ok(entries) => entries,
        Err(errno) => return log::warn!("Emptying the initramfs: reading a directory: {errno}"),
    };
    for entry in entries {
        let result = entry.and_then(|entry| delete(directory, entry.file_name(), device));
        if let Err(errno) = result {
            log::warn!("Emptying the initramfs: {errno}");
        }
    }
}

fn delete(directory: &OwnedFd, name: &CStr, device: u64) -> rustix::io::Result<()> {
    if matches!(name.to_bytes(), b"." | b"..") {
        return Ok(());
    }
    let status = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if status.st_dev != device {
        return Ok(());
    }
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return unlinkat(directory, name, AtFlags::empty());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    delete_below(&openat(directory, name, flags, Mode::empty())?, device);
    unlinkat(directory, name, AtFlags::REMOVEDIR)
}

impl Switched {
    /// Executes the system's init: an empty environment, the console as its three descriptors. No arguments, but for an init
    /// that is systemd: one that says since when, µs of `CLOCK_MONOTONIC`, there was an initramfs.
    ///
    /// # Errors
    ///
    /// Those of execve(2).
    pub fn exec(&self, began: u64) -> Result<Infallible> {
        let mut command = Command::new(&self.init);
        command.env_clear();
        // Open until execve(2), and after it.
        let state = match self.kind {
            Kind::PrepareRoot | Kind::NixosInit => systemd::state(began)
                .inspect_err(|error| log::warn!("Telling systemd when the boot began: {error:#}"))
                .ok(),
            Kind::Classic | Kind::None => None,
        };
        command.args(state.iter().flat_map(systemd::arguments));
        // What PID 1 started with is the console of the initramfs, a file that is deleted by now.
        match OpenOptions::new().read(true).write(true).open("/dev/console") {
            Ok(console) => {
                command.stdin(console.try_clone()?).stdout(console.try_clone()?).stderr(console);
            }
            Err(error) => log::warn!("Opening /dev/console for the system's init: {error}"),
        }
        log::info!("Executing {}", self.init);
        kmsg::restore();
        let error = command.exec();
        Err(error).with_context(|| {
            format!(
                "executing {}; it is there, so its loader or interpreter is missing or it is no program of this machine: pack \
                 the whole closure of a system built for this machine",
                self.init
            )
        })
    }
}
