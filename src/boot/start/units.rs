//! Settings for units of the system's systemd: what it must not do to the mounts of stage 1. They are drop-ins in `/run`, for systems
//! with any fstab (`man 5 systemd.unit`).

use crate::boot::disk::space::{MEMORY, WRITTEN};
use crate::boot::guard;
use crate::boot::kernel::file;
use crate::boot::kernel::mount::make_directory;
use crate::boot::root::{is_in_memory, is_mount_point};
use crate::boot::store::NewRoot;
use crate::boot::system::System;
use crate::contract::kind::Kind;
use crate::contract::plan::FILES;
use anyhow::{Context, Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The names of the mounts of stage 1 in systemd, without the suffix (`man 7 systemd.unit`, "String escaping"). One that ends in a dash
/// is all mounts below this directory.
const MOUNTS: [&str; 7] = [
    r"nix-.ro\x2dstore",
    r"nix-.ro\x2dstore-",
    r"nix-.rw\x2dstore",
    "nix-store",
    "nix-var-nix-db",
    "run-firn-",
    r"run-nixos\x2detc\x2dmetadata",
];

/// The directory with the setting for these mounts.
const SETTING: &str = "/run/firn/mount.d";

/// The fstab for `systemd-remount-fs` on a disk.
const FSTAB: &str = "/run/firn/fstab";

/// Writes the settings for the mounts of this number of images, and keeps the guard of a store that is not registered. A failure is a
/// warning: the system works without the settings. A root in memory with one image and no overlay for `/etc` needs none: the mounts are
/// those of netboot media, and the fstab of a system for netboot has them.
///
/// # Errors
///
/// As for [`NewRoot::inside`].
pub fn set(root: &NewRoot, images: usize, system: &System) -> Result<()> {
    // Programs take /run/systemd/system for a sign that systemd runs.
    let (Some(toplevel), true) = (&system.toplevel, system.kind != Kind::None) else { return Ok(()) };
    let has_fstab_of_host = Path::new(FILES).join("etc/fstab").exists();
    root.inside(|| {
        guard::keep(toplevel);
        if images == 1 && system.config.etc_overlay.is_none() && is_in_memory().unwrap_or(false) {
            return Ok(());
        }
        if let Err(error) = keep_mounts().and_then(|()| keep_root(toplevel, has_fstab_of_host)) {
            warn("A setting for systemd in /run/systemd/system", &error);
        }
        Ok(())
    })
}

/// Logs that something does not reach the running system.
pub fn warn(what: &str, error: &Error) {
    log::warn!("{what} does not reach the running system: {error:#}");
}

/// systemd stops mounts at the end of the system, one by one. The store is in use until then, so these stay. `systemd-shutdown` unmounts
/// them when the processes are gone.
fn keep_mounts() -> Result<()> {
    make_directory("/run/systemd/system")?;
    make_directory(SETTING)?;
    file::replace("/run/firn/mount.d/firn.conf", b"[Unit]\nDefaultDependencies=no\n")?;
    let keep = |name: &str| link(SETTING, &format!("/run/systemd/system/{name}.mount.d"));
    MOUNTS.iter().try_for_each(|name| keep(name))?;
    if !Path::new(MEMORY).exists() {
        return Ok(());
    }
    // The overlays of a full disk. Otherwise the system may have mounts of its own there, such as a tmpfs on /tmp.
    let mut covers = WRITTEN.iter().filter(|path| is_mount_point(path));
    covers.try_for_each(|path| keep(&path.trim_start_matches('/').replace('/', "-")))
}

/// Makes a symlink, unless an earlier attempt or a file of the host is in its place.
///
/// # Errors
///
/// Those of symlink(2), with the path.
pub fn link(target: &str, path: &str) -> Result<()> {
    match symlink(target, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.with_context(|| format!("making the symlink {path} -> {target}")),
    }
}

/// `systemd-remount-fs` gives the root the options of the system's fstab. If that has another file system for the root, such as the
/// tmpfs of netboot media, the program gets an fstab without this line.
fn keep_root(toplevel: &str, has_fstab_of_host: bool) -> Result<()> {
    // Before the activation, /etc may have the one of an earlier system.
    let path = if has_fstab_of_host { "/etc/fstab".into() } else { format!("{toplevel}/etc/fstab") };
    let fstab = match file::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.context(path)?,
    };
    if let Some(fstab) = without_other_roots(&fstab, &fs::read_to_string("/proc/self/mounts")?) {
        make_directory("/run/systemd/system/systemd-remount-fs.service.d")?;
        file::replace(FSTAB, fstab.as_bytes())?;
        file::replace(
            "/run/systemd/system/systemd-remount-fs.service.d/firn.conf",
            b"[Service]\nEnvironment=SYSTEMD_FSTAB=/run/firn/fstab\n",
        )?;
    }
    Ok(())
}

/// An fstab without lines that have the root with another type than `mounts`, a text of the same form (`man 5 fstab`). `None` if it has
/// no such lines.
fn without_other_roots(fstab: &str, mounts: &str) -> Option<String> {
    let kind = mounts.lines().filter_map(kind_of_root).next_back()?;
    let mut kept = String::new();
    for line in fstab.lines() {
        if kind_of_root(line).is_none_or(|other| other == kind || other == "auto") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    (kept.len() < fstab.len()).then_some(kept)
}

/// The third field of a line whose second field is the root.
fn kind_of_root(line: &str) -> Option<&str> {
    let mut fields = line.split_whitespace();
    let is_root = !fields.next()?.starts_with('#') && fields.next()? == "/";
    if is_root { fields.next() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn b_9_names_of_units() {
        let paths = [
            "/nix/.ro-store",
            "/nix/.ro-store/",
            "/nix/.rw-store",
            "/nix/store",
            "/nix/var/nix/db",
            "/run/firn/",
            "/run/nixos-etc-metadata",
        ];
        for (path, name) in paths.into_iter().zip(MOUNTS) {
            let output = Command::new("systemd-escape").args(["--path", path]).output();
            let escaped = String::from_utf8(output.expect("systemd-escape of systemd").stdout).unwrap();
            assert_eq!(name.trim_end_matches('-'), escaped.trim());
            assert_eq!(name.ends_with('-'), path.ends_with('/'));
        }
    }

    #[test]
    fn b_9_only_another_file_system_for_the_root_is_left_out() {
        let mounts = "rootfs / rootfs rw 0 0\n/dev/vda / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n";
        let rest = "# a comment\n\nproc /proc proc hidepid=2 0 0\n";
        for (line, stays) in [
            ("tmpfs / tmpfs mode=0755 0 0", false),
            ("/dev/sda1\t/  xfs\tx-initrd.mount 0 1", false),
            ("LABEL=x / ext4 noatime 0 1", true),
            ("LABEL=x / auto", true),
            ("#tmpfs / tmpfs", true),
            ("tmpfs /tmp tmpfs", true),
        ] {
            let fstab = format!("{line}\n{rest}");
            let expected = if stays { None } else { Some(rest.to_owned()) };
            assert_eq!(without_other_roots(&fstab, mounts), expected, "{line}");
        }
        assert_eq!(without_other_roots(rest, mounts), None);
    }
}
