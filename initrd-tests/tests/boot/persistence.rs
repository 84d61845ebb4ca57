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
fn b_10_and_b_8_a_label_in_quotes_the_profile_as_the_system_and_a_secret() {
    let build = &*WITH_DISKS;
    let (_directory, mut machine) = machine(build);
    machine.append("boot.persistence=LABEL=\"my state\" init=/nix/var/nix/profiles/system/init probe=facts,sync");
    machine.append("live.nixos.password=hunter2");
    // In the first boot the profile is not there yet, in the second one it is.
    for leads_nowhere in [true, false] {
        let report = boot(&machine).unwrap();
        assert_eq!(report.boot["toplevel"], build.manifest.toplevel);
        assert_eq!(report.mounts.iter().find(|mount| mount.target == "/").unwrap().source, "/dev/vda");
        let said =
            |text: &str| report.dmesg.iter().any(|line| line.text.starts_with("firn-init") && line.text.contains(text));
        assert_eq!(said("/nix/var/nix/profiles/system/ leads nowhere yet"), leads_nowhere, "{:#?}", report.dmesg);
        assert!(said(" live.nixos.password=(hidden)") && !said("hunter2"), "{:#?}", report.dmesg);
        assert_eq!(report.boot["warnings"], serde_json::json!([]));
    }
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

#[test]
fn b_7_a_disk_whose_driver_the_command_line_leaves_out() {
    let (_directory, mut machine) = machine(&WITH_DISKS);
    machine.append("boot.persistence=/dev/vda rootwait=1 modprobe.blacklist=virtio-blk");
    let because = "if one is needed here, remove it from modprobe.blacklist=virtio-blk";
    super::failures::fails(&machine, &["in the step  root", "this machine has no block devices", because]);
}
