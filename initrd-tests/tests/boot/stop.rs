//! What systemd makes of the mounts of stage 1: nothing fails at the start, and none is stopped at the end.

use super::command;
use super::credentials::{EXTRA, received, said};
use super::fixture::{Build, pack_with, report, run, with_appended_to};
use super::systemd::PREPARE_ROOT_6_12;
use firn::build::options::BuildOptions;
use firn::build::store::packing::Packing;
use initrd_tests::Report;
use qemu::Machine;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// A system whose init is systemd, with its store in several images, and drivers for a disk.
static WITH_DISKS: LazyLock<Build> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-stop");
    pack_with(&PREPARE_ROOT_6_12.build().manifest.toplevel, directory, |options| {
        let packing = Packing { max_image: 24 << 20, ..options.packing.clone() };
        let available_modules = ["virtio_blk", "virtio-pci"].map(str::to_owned).into();
        BuildOptions { packing, available_modules, ..options }
    })
    .unwrap()
});

/// Boots from an ext4 that a script has changed, with more parameters, and has systemd end the system. Returns the report and the
/// console.
fn boots(script: &str, words: &str) -> (Report, String) {
    let directory = tempfile::tempdir().unwrap();
    let make = format!("/sbin/mkfs.ext4 -q -N 2000 disk 64M; mkdir at; mount -o loop disk at; cd at; {script}");
    run(Command::new("unshare").args(["--mount", "sh", "-euc", &make]).current_dir(&directory)).unwrap();
    let disk: PathBuf = directory.path().join("disk");
    let machine = with_appended_to(&WITH_DISKS, directory.path(), EXTRA);
    let mut machine = Machine { disks: vec![disk], ..machine };
    machine.append(&format!("boot.persistence=/dev/vda systemd.show_status=1 probe=systemd,credentials,stop {words}"));
    let outcome = machine.run().unwrap();
    (report(&outcome).unwrap(), outcome.console)
}

/// A boot with credentials of the boot loader and of the command line.
static ON_DISK: LazyLock<(Report, String)> = LazyLock::new(|| boots(":", "systemd.set_credential=firn.word:hello"));

/// No unit has failed, and none of these mounts is stopped.
fn systemd_leaves_the_mounts(report: &Report, console: &str) {
    let running = command(report, &["systemctl", "is-system-running", "--wait"]);
    let failed = command(report, &["systemctl", "--failed", "--plain", "--no-legend"]);
    assert_eq!((running.stdout.as_str(), failed.stdout.as_str()), ("running\n", ""));
    let remount = report.commands.last().unwrap();
    assert!(remount.stdout.contains("Active: active (exited)"), "{remount:#?}");
    assert!(!remount.stdout.contains("mount: "), "{remount:#?}");
    // Each line has the name of a mount, or the text of its unit.
    let stopped: Vec<_> =
        console.lines().filter(|line| line.contains("nmounting") || line.contains("Unmounted")).collect();
    let ours = stopped.iter().filter(|line| !line.contains("run-credentials"));
    assert_eq!(ours.count(), 0, "{stopped:#?}");
    let ended = ["Stopped target", "umount.target", "systemd-poweroff.service"];
    assert!(ended.iter().all(|words| console.contains(words)), "{console}");
}

#[test]
fn b_9_on_a_disk_nothing_fails_and_no_mount_of_several_images_is_stopped() {
    let (report, console) = &*ON_DISK;
    let images = report.mounts.iter().filter(|mount| mount.target.starts_with("/nix/.ro-store/"));
    assert!(images.count() >= 3, "{:#?}", report.mounts);
    assert!(report.mounts.iter().any(|mount| mount.target == "/" && mount.kind == "ext4"));
    systemd_leaves_the_mounts(report, console);
}

#[test]
fn b_6_credentials_of_the_boot_loader_and_of_the_command_line_both_arrive() {
    let [_, list, unit] = said(&ON_DISK.0);
    let names: Vec<_> = list.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["firn.global", "firn.image", "firn.word"], "{list:#?}");
    assert_eq!(unit.stdout, received("hello"), "{unit:#?}");
}

#[test]
#[ignore = "slow: run by initrd-tests/run --all"]
fn b_9_no_overlay_of_a_full_disk_is_stopped() {
    // An earlier boot has made these, and the link to the program that systemd becomes at its end.
    let generator = format!("{}/etc/systemd/system-generators/systemd-fstab-generator", WITH_DISKS.manifest.toplevel);
    let generator = fs::read_link(generator).unwrap();
    let of_systemd = generator.ancestors().nth(2).unwrap().join("systemd-shutdown");
    assert!(of_systemd.exists(), "{of_systemd:?}");
    let script = format!(
        "mkdir -p dev proc sys run lib/systemd bin etc home root tmp usr/bin var/empty var/log var/tmp var/lib/nixos \
           nix/.ro-store nix/.rw-store nix/store nix/var/nix
         ln -s {} lib/systemd/systemd-shutdown
         (dd if=/dev/zero of=full bs=1k status=none 2>&1 || true) | grep 'No space'",
        of_systemd.display()
    );
    let (report, console) = boots(&script, "");
    let covers = report.mounts.iter().filter(|mount| mount.kind == "overlay");
    assert_eq!(covers.count(), 8, "{:#?}", report.mounts);
    systemd_leaves_the_mounts(&report, &console);
}
