//! A root that stays on a disk from boot to boot.

use super::fixture::{Build, boot, run};
use super::modules::WITH_DISKS;
use qemu::Machine;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// An empty disk with a file system, and a machine with this disk.
fn machine(build: &Build) -> (TempDir, Machine) {
    let directory = tempfile::tempdir().unwrap();
    let disk: PathBuf = directory.path().join("disk");
    let mut mkfs = Command::new("/sbin/mkfs.ext4");
    run(mkfs.args(["-q", "-L", "my state"]).arg(&disk).arg("64M")).unwrap();
    let machine = Machine { disks: vec![disk], ..Machine::of_build(&build.directory).unwrap() };
    (directory, machine)
}

#[test]
fn what_one_boot_writes_the_next_one_finds() {
    let build = &*WITH_DISKS;
    let (directory, mut machine) = machine(build);
    machine.append("boot.persistence=/dev/disk/by-label/my\\x20state boot.persistence.opt=noatime,commit=9");
    machine.append("probe=verify,persistence");
    let mut boots = String::new();
    for _ in 0..2 {
        let report = boot(&machine).unwrap();
        let root = report.mounts.iter().find(|mount| mount.target == "/").unwrap();
        assert_eq!(
            [&root.kind, &root.source, &root.options, &root.super_options],
            ["ext4", "/dev/vda", "rw,noatime", "rw,commit=9"]
        );
        assert_eq!(report.paths["/nix/var/nix/profiles/system"].as_ref(), Some(&build.manifest.toplevel));
        assert_eq!(report.boot["warnings"], serde_json::json!([]));
        let [verify, write, _sync] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
        // The path that the first boot added to the store is gone, and Nix in the second boot does not expect it.
        assert_eq!((verify.status, verify.stderr.contains("/nix/store/")), (Some(0), false), "{verify:#?}");
        assert!(write.stdout.starts_with(&boots) && write.stdout.len() > boots.len(), "{write:#?} after {boots:?}");
        boots.clone_from(&write.stdout);
    }
    assert_eq!(boots.lines().count(), 2, "{boots}");

    // Both boots made the same generation. A link is printed as: "system" -> "system-1-link"
    let disk = directory.path().join("disk");
    let links = |name: &str| run(Command::new("/sbin/debugfs").args(["-R", name]).arg(&disk)).unwrap();
    assert!(links("stat /nix/var/nix/profiles/system").contains("\"system-1-link\""));
    assert!(!links("ls /nix/var/nix/profiles").contains("system-2-link"));
}

#[test]
fn a_disk_that_is_not_there() {
    let build = &*WITH_DISKS;
    let (_directory, mut machine) = machine(build);
    machine.append("boot.persistence=LABEL=other rootwait=1");
    super::failures::fails(
        &machine,
        &[
            "in the step  root",
            "waiting for the device LABEL=other of boot.persistence=",
            "it did not appear in 1 s; this machine has /dev/vda LABEL=my state UUID=",
            "--available-module",
        ],
    );
    machine.disks.clear();
    super::failures::fails(&machine, &["in the step  root", "this machine has no block devices"]);
}
