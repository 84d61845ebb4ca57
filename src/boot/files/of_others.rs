//! Files of a host that others append to the ramdisk, at its root: `kexec/run` of nix-community/nixos-images, and the script of
//! nixos-generators' kexec format. A unit or hook of NixOS' stage 1, which firn-init does not run, puts them into the new root
//! (nixos-images, `nix/restore-remote-access.nix`; nixos-generators, `formats/kexec.nix`). The module accepts these two
//! (`nix/module/nixpkgs.nix`), since this file does their work.

use crate::contract::plan::FILES;
use rustix::fs::{CWD, renameat};
use rustix::io::Errno;

/// Lines with a file or directory of the ramdisk, and its place below [`FILES`]. The builder makes the directories there. What remains in
/// `/ssh` without the keys of users are the keys of the host.
const PLACES: &str = "\
/authorized_keys /root/.ssh/authorized_keys
/ssh/authorized_keys /root/.ssh/authorized_keys
/ssh /etc/ssh
/machine-id /etc/machine-id
/addrs.json /root/network/addrs.json
/routes-v4.json /root/network/routes-v4.json
/routes-v6.json /root/network/routes-v6.json";

/// Moves these files to where they are copied from like all others of the host.
pub fn adopt() {
    for (from, to) in PLACES.lines().filter_map(|line| line.split_once(' ')) {
        match renameat(CWD, from, CWD, format!("{FILES}{to}")) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => log::warn!("Not copying {from} to {to}: {errno}"),
        }
    }
}
