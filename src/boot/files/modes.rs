//! Modes of directories, and modes that sshd refuses. The umask of the administrator who packs an archive decides the modes of its
//! directories, so nobody need have meant them.

use rustix::fs::{FileType, Stat};
use std::ffi::CStr;

/// Directories that every system has, with the owner root and the mode 0755.
const STANDARD: &str = "/bin /boot /etc /etc/nix /etc/ssh /etc/ssh/authorized_keys.d /etc/systemd /etc/systemd/network \
                        /etc/systemd/system /home /lib /media /mnt /nix /nix/var /opt /run /srv /usr /usr/bin /var /var/cache \
                        /var/db /var/lib /var/log /var/spool";

/// The user, the group and the mode of a new directory: the standard ones, or else those of the archive. A mode that is tighter than
/// usual would keep services out, a wider one would make sshd refuse the keys.
pub fn of_new_directory(name: &CStr, path: &str, status: &Stat) -> (u32, u32, u32) {
    match path {
        "/root" | "/root/.ssh" => (0, 0, 0o700),
        "/tmp" | "/var/tmp" => (0, 0, 0o1777),
        _ if STANDARD.split(' ').any(|standard| standard == path) => (0, 0, 0o755),
        _ if name == c".ssh" => (status.st_uid, status.st_gid, 0o700),
        _ => (status.st_uid, status.st_gid, status.st_mode),
    }
}

/// Whether a directory has the files with the keys of users: `~/.ssh`, or NixOS' directory for all users.
pub fn has_keys_of_users(directory: &CStr) -> bool {
    directory == c".ssh" || directory == c"authorized_keys.d"
}

/// A warning about a file that sshd refuses: a private key of the host that others can read (OpenSSH, `sshkey_perm_ok`), or keys of a user
/// that others can write (`StrictModes`, `man 5 sshd_config`).
pub fn of_file(directory: &CStr, name: &CStr, path: &str, status: &Stat) -> Option<String> {
    let name = name.to_bytes();
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        None
    } else if name.starts_with(b"ssh_host_") && name.ends_with(b"_key") {
        // sshd looks only at the modes of root's keys.
        if status.st_uid == 0 { refusal(path, status, 0o077) } else { None }
    } else if directory == c"authorized_keys.d" || directory == c".ssh" && name.starts_with(b"authorized_keys") {
        around_keys(path, status)
    } else {
        None
    }
}

/// A warning about a file with the keys of a user, or a directory around it, that others can write.
pub fn around_keys(path: &str, status: &Stat) -> Option<String> {
    refusal(path, status, 0o022)
}

/// A warning if a file has one of these mode bits, or is in root's home and not root's.
fn refusal(path: &str, status: &Stat, bits: u32) -> Option<String> {
    let (mode, user) = (status.st_mode & 0o7777, status.st_uid);
    let needed = if path.starts_with("/root/") { 0 } else { user };
    (mode & bits != 0 || user != needed).then(|| {
        format!(
            "{path} has the mode {mode:o} and the owner {user}, and sshd refuses it; it needs the mode {:o} and the owner {needed}",
            mode & !bits
        )
    })
}
