//! Kernel modules beyond those that the store needs.

use super::LINUX_6_1;
use super::failures::fails;
use super::fixture::{Build, boot, pack, run, toplevel};
use initrd_tests::Report;
use qemu::Machine;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use tempfile::NamedTempFile;

/// The demo system with drivers for virtio disks and consoles, the driver of their bus (a module in Debian's 6.1), and drivers without a
/// device, one of them for another kind of machine.
pub static WITH_DISKS: LazyLock<Build> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-modules");
    pack(
        &LINUX_6_1.build().manifest.toplevel,
        directory,
        &["virtio_blk", "virtio-pci", "virtio_console", "dummy", "xen-tpmfront", "drbd"],
    )
    .unwrap()
});

/// Boots a machine with a disk and these parameters, and returns its report and the names of its modules and devices.
fn with_disk(words: &str) -> (Report, Vec<String>) {
    let disk = NamedTempFile::new().unwrap();
    File::set_len(disk.as_file(), 1 << 20).unwrap();
    let mut machine = Machine::of_build(&WITH_DISKS.directory).unwrap();
    machine.disks.push(disk.path().into());
    machine.append("probe=modules");
    machine.append(words);
    let report = boot(&machine).unwrap();
    let names = report.commands[1].stdout.lines().map(str::to_owned).collect();
    (report, names)
}

fn place(report: &Report, words: &str) -> usize {
    let place = report.dmesg.iter().position(|line| line.text.contains(words));
    place.unwrap_or_else(|| panic!("no line with {words:?} in {:#?}", report.dmesg))
}

#[test]
fn a_store_image_can_be_a_disk() {
    let mut machine = Machine::of_build(&WITH_DISKS.directory).unwrap();
    machine.disks.push(WITH_DISKS.directory.join("nix-store.squashfs"));
    let manifest = &WITH_DISKS.manifest;
    let image = manifest.files.iter().find(|file| file.name == manifest.images[0].file).unwrap();
    machine.append(&format!("probe=facts firn.store=/dev/vda firn.store.sha256={}", image.sha256));
    let report = boot(&machine).unwrap();
    place(&report, "Verifying the store image /dev/vda");
    let store = report.mounts.iter().find(|mount| mount.target == "/nix/.ro-store").unwrap();
    assert_eq!([&store.kind, &store.source], ["squashfs", "/dev/vda"]);
    assert_eq!(report.boot["images"], serde_json::json!([{"path": "/dev/vda", "source": "/dev/vda"}]));
}

#[test]
fn b_4_a_store_image_that_cannot_be_verified_is_not_mounted() {
    let disk = NamedTempFile::new().unwrap();
    File::set_len(disk.as_file(), 1 << 20).unwrap();
    let mut machine = Machine::of_build(&WITH_DISKS.directory).unwrap();
    machine.disks.push(disk.path().into());
    machine.append("firn.store=/dev/vda firn.verify=full");
    fails(&machine, &["in the step  image", "/dev/vda cannot be verified", "with firn.store.sha256="]);
}

#[test]
fn b_7_the_word_that_takes_the_loop_devices_away() {
    let mut machine = Machine::of_build(&WITH_DISKS.directory).unwrap();
    machine.append("rd.driver.blacklist=nouveau,loop");
    let because = "the kernel command line leaves out loop devices: remove loop from rd.driver.blacklist=nouveau,loop";
    fails(&machine, &["in the step  store", because]);
}

#[test]
fn devices_get_their_drivers_before_the_store_is_mounted() {
    let (report, names) = with_disk("firn.modules=dummy,no-such,xen_tpmfront loop.max_loop=5");
    assert!(place(&report, "[vda] 2048 512-byte logical blocks") < place(&report, "devices: done"));
    assert_eq!(report.commands[0].stdout, "5\n");
    // The system has parameters for dummy in its modprobe.d.
    for name in ["vda", "virtio_blk", "virtio_pci", "dummy", "dummy2", "loop4"] {
        assert!(names.iter().any(|other| other == name), "no {name} among {names:?}");
    }
    for name in ["loop5", "dummy3"] {
        assert!(!names.iter().any(|other| other == name), "{name} is among {names:?}");
    }
    let warning =
        "The ramdisk has no module no-such, which firn.modules= names; build it with --available-module no-such";
    assert_eq!(report.boot["warnings"], serde_json::json!([warning]));
}

#[test]
fn modules_that_are_to_be_skipped_and_parameters_that_make_no_sense() {
    let (report, names) = with_disk("modprobe.blacklist=virtio-blk loop.max_loop=many");
    for name in ["vda", "virtio_blk", "dummy"] {
        assert!(!names.iter().any(|other| other == name), "{name} is among {names:?}");
    }
    assert!(names.contains(&"virtio_pci".to_owned()), "{names:?}");
    place(&report, "drivers/block/virtio_blk.ko, because of modprobe.blacklist=virtio-blk on the kernel command line");
    let warnings = report.boot["warnings"].as_array().unwrap();
    let [warning] = warnings.as_slice() else { panic!("{warnings:#?}") };
    let warning = warning.as_str().unwrap();
    assert!(warning.contains("drivers/block/loop.ko: the kernel refuses it"), "{warning}");
    assert!(warning.ends_with("trying again without max_loop=many"), "{warning}");
}

/// The demo system with a kernel in which crc32 is built in, and also the alias of modules that f2fs works
/// better with.
static WITH_F2FS: LazyLock<Build> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-modules-f2fs");
    let modules = ["f2fs", "virtio_blk", "virtio_pci", "crc32", "cfg80211"];
    pack(&toplevel("classic", "6.1-generic").unwrap(), directory, &modules).unwrap()
});

#[test]
fn a_9_a_root_with_a_file_system_that_only_the_kernel_knows() {
    let build = &*WITH_F2FS;
    let disk = NamedTempFile::new().unwrap();
    File::set_len(disk.as_file(), 256 << 20).unwrap();
    run(Command::new("/usr/sbin/mkfs.f2fs").args(["-q", "-l", "state"]).arg(disk.path())).unwrap();
    let mut machine = Machine::of_build(&build.directory).unwrap();
    machine.disks.push(disk.path().into());
    machine.append("boot.persistence=/dev/vda probe=modules firn.modules=fs-debugfs,crc32,cfg80211");
    let report = boot(&machine).unwrap();
    let root = report.mounts.iter().find(|mount| mount.target == "/").unwrap();
    assert_eq!([&root.kind, &root.source], ["f2fs", "/dev/vda"]);
    // One of the two modules is built in, under an alias.
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    let names = &report.commands[1].stdout;
    for name in ["f2fs", "crc32_generic"] {
        assert!(names.lines().any(|other| other == name), "no {name} in {names}");
    }
    assert!(place(&report, "crc32_generic.ko") < place(&report, "f2fs.ko"));
    // cfg80211 found the firmware that it names.
    assert!(
        place(&report, "loaded regulatory.db is malformed or signature is missing/invalid")
            < place(&report, "hand-over: done")
    );
}

#[test]
fn a_9_a_parameter_that_the_kernel_refuses_is_named_and_the_others_stay() {
    let long = "x".repeat(1100);
    let (report, names) = with_disk(&format!(
        "loop.max_part=3 loop.max_loop=many firn.modules=drbd drbd.minor_count=4 drbd.usermode_helper={long}"
    ));
    let warnings: Vec<_> =
        report.boot["warnings"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let [first, second] = warnings.as_slice() else { panic!("{warnings:#?}") };
    assert!(first.contains("block/loop.ko: the kernel refuses it"), "{first}");
    assert!(first.ends_with("; trying again without max_loop=many"), "{first}");
    assert!(second.contains("drbd.ko: the kernel refuses it: the value of a parameter is too long"), "{second}");
    assert!(second.ends_with("; trying again without usermode_helper=, which has 1100 bytes"), "{second}");
    assert!(report.dmesg.iter().any(|line| line.text.ends_with("block/loop.ko max_part=3")), "{:#?}", report.dmesg);
    assert!(report.dmesg.iter().any(|line| line.text.ends_with("drbd.ko minor_count=4")), "{:#?}", report.dmesg);
    assert!(names.contains(&"drbd".to_owned()), "{names:?}");
}
