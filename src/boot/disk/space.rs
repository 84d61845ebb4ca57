//! A root on a disk that is full or read-only. The boot never ends because of it: the changes of stage 1 and of the system's activation
//! go into memory, and a person can clean up in the running system.

use crate::boot::kernel::mount::{Filesystem, make_directory};
use crate::boot::parameters::limits::Limits;
use anyhow::{Context, Result};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{mount_bind, mount_move};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::iter;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

/// The mount point of the disk itself, if the system has some of it only through overlays.
pub const DISK: &str = "/run/firn/disk";

/// The mount point of the tmpfs with the upper layers of these overlays.
pub const MEMORY: &str = "/run/firn/memory";

/// The directories that stage 1 and the activation of NixOS write to. The others of a full disk stay as they are: a service must not go
/// on with changes in memory, which the next boot loses.
pub const WRITTEN: [&str; 6] = ["/bin", "/etc", NIX_STATE, "/tmp", "/usr/bin", "/var/lib/nixos"];

/// Nix's database, profiles and garbage collector roots.
pub const NIX_STATE: &str = "/nix/var/nix";

/// The mount points below the root and the directories that Nix needs, apart from those of the first step.
const NEEDED: [&str; 5] = ["/nix/.ro-store", "/nix/.rw-store", "/nix/store", NIX_STATE, "/etc"];

/// The least free space of a disk that is not full, bytes, and the least number of free inodes.
const LEAST_BYTES: usize = 1 << 20;
const LEAST_INODES: u64 = 100;

/// The part of a disk that takes changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Writable {
    /// The whole disk.
    All,
    /// The disk is full. It has every directory that a boot needs. With the reason.
    Little(String),
    /// The disk is read-only, or lacks a directory that cannot be made. With the reason.
    Nothing(String),
}

/// Finds out whether the root of this process takes changes, by making the directories `mount_points` and all others that a boot needs,
/// and a file.
pub fn writable(mount_points: &[&str]) -> Writable {
    for path in mount_points.iter().chain(&NEEDED) {
        if let Err(error) = make_directory(path) {
            return Writable::Nothing(format!("{error:#}"));
        }
    }
    let made = make_file("/nix/.rw-store/.firn");
    let status = statvfs("/").ok();
    if status.as_ref().is_some_and(|status| status.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return Writable::Nothing("it is read-only".into());
    }
    match made {
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            Writable::Little(format!("making a file of {LEAST_BYTES} bytes: {error}"))
        }
        Err(error) => Writable::Nothing(format!("making a file: {error}")),
        // A file system without a fixed number of inodes has 0 of 0.
        Ok(()) => match status.filter(|status| status.f_files > 0 && status.f_ffree < LEAST_INODES) {
            Some(status) => Writable::Little(format!("{} files can be made", status.f_ffree)),
            None => Writable::All,
        },
    }
}

/// Makes a file of the least free space, and deletes it. File systems reserve blocks, so the number of free blocks tells less.
fn make_file(path: &str) -> io::Result<()> {
    let made = File::create(path).and_then(|mut file| file.write_all(&vec![0; LEAST_BYTES]));
    match fs::remove_file(path) {
        Err(error) if made.is_ok() => Err(error),
        _ => made,
    }
}

/// Puts an overlay in memory over the disk that is mounted on `root`. The disk itself moves to [`DISK`].
///
/// # Errors
///
/// A mount that the kernel refuses.
pub fn cover(root: &str, name: &str, reason: &str, limits: &Limits) -> Result<()> {
    log::error!(
        "The disk {name} takes no changes ({reason}): all changes of this boot are in memory, and the next boot loses them. The disk is \
         mounted on {DISK}"
    );
    make_directory(DISK)?;
    mount_move(root, DISK).with_context(|| format!("moving the mount on {root} to {DISK}"))?;
    memory(limits)?;
    overlay(DISK, root)
}

/// Puts overlays in memory over the [`WRITTEN`] directories of a full disk, which is the root of this process.
pub fn cover_written(name: &str, reason: &str, limits: &Limits) {
    log::error!(
        "The disk {name} is full ({reason}): the changes of this boot below {} are in memory, and the next boot loses them. Delete files \
         below {DISK}, then reboot",
        WRITTEN.join(", ")
    );
    cover_each(&WRITTEN, limits);
}

/// Puts an overlay in memory over each of these directories, as far as they exist. A failure is only an error in the log.
pub fn cover_each(directories: &[&str], limits: &Limits) {
    let prepare = || -> Result<()> {
        memory(limits)?;
        make_directory(DISK)?;
        mount_bind("/", DISK).with_context(|| format!("mount --bind / {DISK}"))
    };
    let there = directories.iter().filter(|path| Path::new(path).is_dir());
    let covered = iter::once(prepare()).chain(there.map(|path| overlay(path, path)));
    for error in covered.filter_map(Result::err) {
        log::error!("Keeping changes in memory: {error:#}");
    }
}

fn memory(limits: &Limits) -> Result<()> {
    Filesystem::tmpfs(&limits.options()).mount(Path::new(MEMORY))
}

/// Mounts an overlay over the directory `lower` on `target`, with its upper layer in [`MEMORY`].
fn overlay(lower: &str, target: &str) -> Result<()> {
    let base = format!("{MEMORY}/{}", target.trim_start_matches('/').replace('/', "-"));
    let (upper, work) = (format!("{base}/upper"), format!("{base}/work"));
    make_directory(&upper)?;
    make_directory(&work)?;
    // The overlay shows the owner and the mode of the upper directory.
    let of = fs::metadata(lower).with_context(|| format!("reading the mode of {lower}"))?;
    chown(&upper, Some(of.uid()), Some(of.gid()))
        .and_then(|()| fs::set_permissions(&upper, Permissions::from_mode(of.mode() & 0o7777)))
        .with_context(|| format!("setting the mode of {upper}"))?;
    Filesystem::overlay(&[("lowerdir", lower), ("upperdir", &upper), ("workdir", &work)]).mount(Path::new(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{enter_initramfs, in_namespaces};
    use rustix::mount::{MountFlags, mount_remount};

    #[test]
    fn a_5_a_full_disk_and_a_read_only_disk_are_noticed() {
        in_namespaces(module_path!(), "a_5_a_full_disk_and_a_read_only_disk_are_noticed", || {
            let work = tempfile::tempdir().unwrap();
            enter_initramfs(work.path(), &[]);
            fs::remove_dir("/tmp").unwrap();
            assert_eq!(writable(&["/proc"]), Writable::All);
            // The system makes it, with another mode.
            assert!(Path::new("/proc").is_dir() && !Path::new("/tmp").exists());
            assert_eq!(fs::read_dir("/nix/.rw-store").unwrap().count(), 0);
            mount_remount("/", MountFlags::empty(), "nr_inodes=50").unwrap();
            assert!(matches!(writable(&[]), Writable::Little(reason) if reason.ends_with("files can be made")));
            mount_remount("/", MountFlags::empty(), "nr_inodes=1000,size=512k").unwrap();
            assert!(matches!(writable(&[]), Writable::Little(reason) if reason.contains("No space left on device")));
            mount_remount("/", MountFlags::RDONLY, "").unwrap();
            assert_eq!(writable(&[]), Writable::Nothing("it is read-only".into()));
            assert!(matches!(writable(&["/missing"]), Writable::Nothing(reason) if reason.contains("/missing")));
        });
    }
}
