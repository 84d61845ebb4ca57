//! The work of nixos-init before systemd, done by stage 1 itself: permissions and mount options of the store, links that programs rely
//! on, and the kernel's paths for modprobe and firmware. The steps and their order are those of nixpkgs'
//! `pkgs/by-name/ni/nixos-init` (`init.rs`, `activate.rs`).

use crate::boot::kernel::mount::make_directory;
use crate::contract::nixos_init::Config;
use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

const STORE: &str = "/nix/store";

/// The group nixbld of NixOS (nixpkgs, `nixos/modules/misc/ids.nix`). There is no `/etc/group` yet to look it up in.
const NIXBLD: u32 = 30000;

/// Activates a system with this configuration. The current root is the root of the system.
///
/// # Errors
///
/// A mount, or a link in `/run`, that the kernel refuses.
pub fn activate(toplevel: &str, config: &Config) -> Result<()> {
    log::info!("Activating {toplevel}");
    share_store();
    remount_store(&config.nix_store_mount_opts)?;
    link("/run/booted-system", toplevel)?;
    link("/run/current-system", toplevel)?;
    set("/proc/sys/kernel/modprobe", config.modprobe_binary.as_deref());
    set("/sys/module/firmware_class/parameters/path", config.firmware.as_deref());
    for (path, target) in [("/usr/bin/env", &config.env_binary), ("/bin/sh", &config.sh_binary)] {
        // The disk of the root may be full.
        if let Err(error) = link_or_remove(path, target.as_deref()) {
            log::error!("{error:#}. The boot goes on");
        }
    }
    Ok(())
}

/// Lets the build users of Nix write to the store. The sticky bit keeps them from removing files of other users.
fn share_store() {
    // Done by an earlier attempt, after which the store is read-only.
    if fs::metadata(STORE).is_ok_and(|store| store.gid() == NIXBLD && store.mode() & 0o7777 == 0o1775) {
        return;
    }
    let shared =
        chown(STORE, Some(0), Some(NIXBLD)).and_then(|()| fs::set_permissions(STORE, Permissions::from_mode(0o1775)));
    if let Err(error) = shared {
        log::warn!("Giving {STORE} to the group {NIXBLD} with mode 1775: {error}; builds with Nix may fail");
    }
}

/// Sets the missing mount options on `/nix/store`, on a separate bind mount. Nix remounts it writable for itself.
fn remount_store(wanted: &[String]) -> Result<()> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let present = options_of(&mountinfo, STORE).unwrap_or_default();
    for option in wanted.iter().filter(|option| flag(option).is_none()) {
        log::warn!("Mounting {STORE} without the option {option}: this firn does not know it");
    }
    if wanted.iter().filter(|option| flag(option).is_some()).all(|option| present.contains(&option.as_str())) {
        return Ok(());
    }
    log::info!("Remounting {STORE} with {}", wanted.join(","));
    mount_bind(STORE, STORE).with_context(|| format!("mount --bind {STORE} {STORE}"))?;
    // A remount sets all flags, so the present ones have to be repeated.
    let flags = flags(wanted.iter().map(String::as_str).chain(present)) | MountFlags::BIND;
    if let Err(errno) = mount_remount(STORE, flags, "") {
        // The next attempt must not find it.
        if let Err(errno) = unmount(STORE, UnmountFlags::DETACH) {
            log::warn!("Unmounting {STORE}: {errno}");
        }
        return Err(errno).with_context(|| format!("mount -o remount,bind,{} {STORE}", wanted.join(",")));
    }
    Ok(())
}

/// The options of the last mount on `target` (`man 5 proc_pid_mountinfo`). It hides earlier mounts on the same path.
fn options_of<'a>(mountinfo: &'a str, target: &str) -> Option<Vec<&'a str>> {
    let last = mountinfo.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(4);
        (fields.next()? == target).then(|| fields.next()).flatten()
    })?;
    Some(last.split(',').collect())
}

fn flags<'a>(options: impl Iterator<Item = &'a str>) -> MountFlags {
    options.filter_map(flag).fold(MountFlags::empty(), MountFlags::union)
}

/// The flag for a mount option, by its name in mount(8). `None` for options of a file system and for defaults such as `rw`.
fn flag(option: &str) -> Option<MountFlags> {
    Some(match option {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        _ => return None,
    })
}

/// The maximum length of a path that the kernel keeps in a setting, bytes: `KMOD_PATH_LEN` (include/linux/kmod.h) and the array
/// `fw_path_para` (`drivers/base/firmware_loader/main.c`) without the final NUL. The kernel cuts off the rest of the first without an error.
const LONGEST_SETTING: usize = 255;

/// Sets a path in the kernel. Without it the system works but cannot load modules or firmware on demand, so a failure is a warning. A
/// kernel without modules, or without firmware loading, lacks the setting.
fn set(setting: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    let write = || -> std::io::Result<()> {
        if value.len() > LONGEST_SETTING {
            let length = value.len();
            return Err(std::io::Error::other(format!(
                "it has {length} bytes, and the kernel takes {LONGEST_SETTING}"
            )));
        }
        fs::OpenOptions::new().write(true).open(setting)?.write_all(value.as_bytes())
    };
    match write() {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            log::info!("This kernel has no {setting}, so it does not need {value}");
        }
        Err(error) => log::warn!("Writing {value} to {setting}: {error}"),
    }
}

fn link_or_remove(path: &str, target: Option<&str>) -> Result<()> {
    target.map_or(Ok(()), |target| link(path, target))
}

/// Makes a symlink. It replaces an existing file or symlink. Without a target it only removes them; the directory is made in any case,
/// because systemd does not start with an empty `/usr`.
fn link(path: &str, target: &str) -> Result<()> {
    make_directory(Path::new(path).parent().unwrap_or(Path::new("/")))?;
    remove(path)?;
    if target.is_empty() {
        return Ok(());
    }
    symlink(target, path).with_context(|| format!("making the symlink {path} -> {target}"))
}

fn remove(path: &str) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("removing {path}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_counts() {
        let mountinfo = "30 22 0:27 / /nix/store rw,relatime - overlay overlay rw,lowerdir=/nix/.ro-store\n\
                         31 30 0:27 / /nix/store ro,nosuid shared:1 - overlay overlay rw\n\
                         32 22 0:28 / /nix/store/x rw - tmpfs tmpfs rw\n";
        assert_eq!(options_of(mountinfo, "/nix/store").unwrap(), ["ro", "nosuid"]);
        assert_eq!(options_of(mountinfo, "/nix/store/x").unwrap(), ["rw"]);
        assert_eq!(options_of(mountinfo, "/nix"), None);
        assert_eq!(options_of("", "/nix"), None);
    }

    #[test]
    fn options_are_flags() {
        let all = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime"];
        assert_eq!(flags(all.into_iter()).iter().count(), all.len());
        // Options as in mountinfo and NixOS, and some that are no flags.
        let expected = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::RELATIME;
        assert_eq!(flags(["rw", "relatime", "ro", "nodev", "size=1g"].into_iter()), expected);
    }

    #[test]
    fn links_are_made_replaced_removed_or_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("usr/bin/env");
        let target_of_link = || fs::read_link(&path).ok();
        let path = path.to_str().unwrap();
        for (target, expected) in [
            (None, None),
            (Some("/a"), Some("/a")),
            (Some("/b"), Some("/b")),
            (None, Some("/b")),
            (Some(""), None),
            (Some(""), None),
        ] {
            link_or_remove(path, target).unwrap();
            assert_eq!(target_of_link().as_deref(), expected.map(Path::new), "{target:?}");
        }
        // A regular file is replaced, too; a directory is not.
        fs::write(path, "").unwrap();
        link(path, "/a").unwrap();
        assert_eq!(target_of_link().as_deref(), Some(Path::new("/a")));
        let error = format!("{:#}", link(root.path().join("usr/bin").to_str().unwrap(), "/a").unwrap_err());
        assert!(error.starts_with("removing "), "{error}");
    }

    #[test]
    fn b_3_a_system_without_the_link_has_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("usr/bin/env");
        link_or_remove(path.to_str().unwrap(), Some("")).unwrap();
        assert!(root.path().join("usr/bin").is_dir() && !path.exists());
    }

    #[test]
    fn a_setting_that_the_kernel_lacks_is_skipped() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("modprobe");
        set(path.to_str().unwrap(), Some("/a"));
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        set(path.to_str().unwrap(), Some("/a"));
        set(path.to_str().unwrap(), None);
        assert_eq!(fs::read_to_string(&path).unwrap(), "/a");
    }

    #[test]
    fn a_1_a_path_that_the_kernel_would_cut_off_is_not_set() {
        let setting = tempfile::NamedTempFile::new().unwrap();
        for (length, expected) in [(256, 0), (255, 255)] {
            set(setting.path().to_str().unwrap(), Some(&"x".repeat(length)));
            assert_eq!(fs::metadata(setting.path()).unwrap().len(), expected);
        }
    }
}
