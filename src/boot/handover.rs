//! The hand-over: the new root becomes `/`, the files of the initramfs are deleted, and process 1 executes the system's init.

use crate::boot::console::kmsg;
use crate::boot::early::Early;
use crate::boot::kernel::{delete, processes};
use crate::boot::root::{enter, open_directory};
use crate::boot::start::systemd;
use crate::boot::store::NewRoot;
use crate::boot::system::System;
use crate::contract::kind::Kind;
use anyhow::{Context, Result};
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Shows that the root of this process is the root of the system.
pub struct Switched {
    init: String,
    kind: Kind,
}

/// Makes the new root `/`, as `switch_root(8)` does, and frees the memory of the initramfs.
///
/// The mount is moved to `/`; chroot(2) alone is not enough: the kernel would refuse user namespaces to the running system (`EPERM` in
/// clone(2): the caller's root is not the root of its mount namespace).
///
/// # Errors
///
/// The mount cannot be moved.
#[expect(clippy::needless_pass_by_value, reason = "after the switch there is no new root any more")]
pub fn switch_root(root: NewRoot, early: &Early, system: &System) -> Result<Switched> {
    processes::kill_all();
    let initramfs = open_directory("/")?;
    rustix::process::fchdir(root.directory()).context("changing to the directory of the new root")?;
    rustix::mount::mount_move(".", "/").context("moving the new root to /")?;
    // From here on there is no way back, and the initramfs has nothing else to lose.
    if let Err(error) = early.detach() {
        log::warn!("{error:#}");
    }
    enter(root.directory())?;
    delete::empty(&initramfs);
    Ok(Switched { init: system.init.clone(), kind: system.kind })
}

impl Switched {
    /// Executes the system's init, with an empty environment and the console as its standard input and outputs. Only systemd gets
    /// arguments: they tell it when the initramfs began (`began`, µs of `CLOCK_MONOTONIC`).
    ///
    /// # Errors
    ///
    /// An error of execve(2).
    pub fn exec(&self, began: u64) -> Result<Infallible> {
        // The state has to stay open across execve(2).
        let (mut command, _state) = self.prepare(began)?;
        Err(command.exec()).with_context(|| {
            format!(
                "executing {}; the file exists, so its loader or interpreter is missing, or it is a program for another machine: \
                 pack the whole closure of a system that is built for this machine",
                self.init
            )
        })
    }

    /// The command of the init, and the open state that its arguments name. The kernel's settings are as they were before stage 1.
    fn prepare(&self, began: u64) -> Result<(Command, Option<File>)> {
        let state = match self.kind {
            Kind::PrepareRoot | Kind::NixosInit => systemd::state(began)
                .inspect_err(|error| log::warn!("Telling systemd when stage 1 began: {error:#}"))
                .ok(),
            Kind::Classic | Kind::None => None,
        };
        let mut command = Command::new(&self.init);
        command.env_clear().args(state.iter().flat_map(systemd::arguments));
        // The descriptors that the kernel gave to process 1 are the console of the initramfs, a file that is deleted by now.
        for path in ["/dev/console", "/dev/null"] {
            match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => {
                    command.stdin(file.try_clone()?).stdout(file.try_clone()?).stderr(file);
                    break;
                }
                // A machine without a console.
                Err(error) => log::warn!("Opening {path} for the system's init: {error}"),
            }
        }
        log::info!("Executing {}", self.init);
        kmsg::restore();
        Ok((command, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_namespaces;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_init_gets_no_environment_and_only_systemd_gets_arguments() {
        // With a /dev/console of its own, and settings of the kernel that no other test changes.
        in_namespaces(module_path!(), "an_init_gets_no_environment_and_only_systemd_gets_arguments", || {
            let work = tempfile::tempdir().unwrap();
            let said = |init: &str, kind| {
                let (mut command, state) = Switched { init: init.into(), kind }.prepare(7).unwrap();
                let output = command.stdout(std::process::Stdio::piped()).output().unwrap();
                drop(state);
                String::from_utf8(output.stdout).unwrap()
            };
            assert!(std::env::vars().count() > 0);
            for kind in [Kind::Classic, Kind::PrepareRoot, Kind::NixosInit, Kind::None] {
                let arguments = said("/bin/echo", kind);
                match kind {
                    Kind::Classic | Kind::None => assert_eq!(arguments, "\n"),
                    _ => assert!(arguments.starts_with("--switched-root --system --deserialize="), "{arguments}"),
                }
            }
            assert_eq!(said("/usr/bin/env", Kind::Classic), "");

            let setting = work.path().join("printk");
            fs::write(&setting, "4").unwrap();
            kmsg::set(setting.to_str().unwrap().to_owned().leak(), "8").unwrap();
            let (_, state) = Switched { init: "/init".into(), kind: Kind::NixosInit }.prepare(7).unwrap();
            assert_eq!(fs::read_to_string(&setting).unwrap(), "4");
            assert!(state.unwrap().metadata().unwrap().size() > 0);
        });
    }
}
