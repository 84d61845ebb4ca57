//! Roots that stay on file systems with options and parts of their own: XFS and btrfs.

use super::fixture::{Build, boot, pack, run, toplevel};
use initrd_tests::{Mount, Report};
use qemu::Machine;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// The demo system with a kernel and the drivers of both file systems.
static BUILD: LazyLock<Build> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-file-systems");
    let modules = ["xfs", "btrfs", "virtio_blk", "virtio_pci"];
    pack(&toplevel("classic", "6.1-generic").unwrap(), directory, &modules).unwrap()
});

/// Makes a file system on the file `disk` of a new directory by a shell script.
fn disk(script: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    run(Command::new("sh").args(["-euc", script]).current_dir(&directory)).unwrap();
    let disk = directory.path().join("disk");
    (directory, disk)
}

/// Boots a machine with a disk.
fn boot_from(disk: &Path, words: &str) -> Report {
    let mut machine = Machine::of_build(&BUILD.directory).unwrap();
    machine.disks.push(disk.into());
    machine.append(words);
    boot(&machine).unwrap()
}

fn root(report: &Report) -> &Mount {
    report.mounts.iter().find(|mount| mount.target == "/").unwrap()
}

/// Boots twice from a disk: the second boot has the files and the profile of the first one, and a database of its own.
fn stays(disk: &Path, words: &str, kind: &str, options: &[&str]) {
    let mut before = String::new();
    for _ in 0..2 {
        let report = boot_from(disk, &format!("{words} probe=verify,persistence"));
        let root = root(&report);
        assert_eq!([&root.kind, &root.source, &root.options], [kind, "/dev/vda", "rw,noatime"]);
        let there: Vec<_> = root.super_options.split(',').collect();
        assert!(options.iter().all(|option| there.contains(option)), "{options:?} of {there:?}");
        assert_eq!(report.boot["warnings"], serde_json::json!([]));
        let [verify, write, _sync] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
        assert_eq!((verify.status, verify.stderr.contains("/nix/store/")), (Some(0), false), "{verify:#?}");
        assert!(write.stdout.starts_with(&before) && write.stdout.len() > before.len(), "{write:#?}");
        before.clone_from(&write.stdout);
    }
    assert_eq!(before.lines().count(), 2, "{before}");
}

/// Boots from a disk that cannot be written and was in use when its machine lost its power: all changes are in memory.
fn boots_without_a_replay(disk: &Path, words: &str) {
    fs::set_permissions(disk, Permissions::from_mode(0o444)).unwrap();
    let report = boot_from(disk, &format!("{words} probe=facts"));
    fs::set_permissions(disk, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(root(&report).kind, "overlay");
    assert!(report.boot["warnings"][0].as_str().unwrap().contains("takes no changes"), "{:#?}", report.boot);
    let logged = |text: &str| report.dmesg.iter().any(|line| line.text.contains(text));
    assert!(logged("mounting it without the latest changes, which are in its journal only"), "{:#?}", report.dmesg);
}

/// Runs a shell script in the directory of a disk, with the disk mounted on `at` with these options. Returns its output.
fn mounted(disk: &Path, options: &str, script: &str) -> String {
    let script = format!("mkdir -p at; mount -o loop{options} disk at; {script}");
    let mut command = Command::new("unshare");
    run(command.args(["--mount", "sh", "-euc", &script]).current_dir(disk.parent().unwrap())).unwrap()
}

/// The links of the system profile on a disk, which is mounted with these options.
fn profiles(disk: &Path, options: &str) -> String {
    mounted(disk, options, "cd at/nix/var/nix/profiles; readlink system; ls -d system-*")
}

#[test]
fn b_11_a_root_on_xfs_stays() {
    let (_directory, disk) = disk("truncate -s 320M disk; /sbin/mkfs.xfs -q -L 'my state' disk");
    stays(
        &disk,
        "boot.persistence=/dev/vda boot.persistence.opt=noatime,noquota,logbufs=4",
        "xfs",
        &["noquota", "logbufs=4"],
    );
    // The machine was switched off without an unmount.
    boots_without_a_replay(&disk, "boot.persistence=/dev/disk/by-label/my\\x20state");
    assert_eq!(profiles(&disk, ""), "system-1-link\nsystem-1-link\n");
}

#[test]
fn b_11_a_root_on_btrfs_stays() {
    let (_directory, disk) = disk("truncate -s 160M disk; /sbin/mkfs.btrfs -q -L state disk");
    mounted(&disk, "", "btrfs subvolume create at/@ > /dev/null");
    let options = "boot.persistence.opt=subvol=@,compress=zstd,noatime";
    stays(&disk, &format!("boot.persistence=LABEL=state {options}"), "btrfs", &["subvol=/@", "compress=zstd:3"]);
    assert_eq!(profiles(&disk, ",subvol=@"), "system-1-link\nsystem-1-link\n");

    // btrfs writes its log only for fsync(2).
    mounted(&disk, ",subvol=@", "sync; dd if=/dev/zero of=at/new count=1 conv=fsync status=none; cp disk in-use");
    boots_without_a_replay(&disk.with_file_name("in-use"), "boot.persistence=/dev/vda boot.persistence.opt=subvol=@");

    let mut machine = Machine::of_build(&BUILD.directory).unwrap();
    machine.disks.push(disk);
    machine.append("boot.persistence=LABEL=state boot.persistence.opt=subvol=@root");
    super::failures::fails(
        &machine,
        &["in the step  root", "the btrfs has no subvolume of the name in boot.persistence.opt="],
    );
}
