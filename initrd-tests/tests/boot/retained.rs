//! Zero-copy store images that the boot loader loaded in another order than firn's, or not at all.

use super::failures::{fails, with_ramdisk};
use super::fixture::{boot, run};
use super::{LINUX_6_1, LINUX_6_12};
use firn::contract::parameters::RETAIN;
use qemu::Machine;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The parts of a ramdisk: the bytes before the store images, and an archive with the store images.
fn parts() -> (Vec<u8>, Vec<u8>) {
    let build = LINUX_6_12.build();
    let mut before = fs::read(build.directory.join("initrd")).unwrap();
    let images = before.split_off(usize::try_from(build.manifest.before_images).unwrap());
    (before, images)
}

fn machine(directory: &Path, ramdisk: &[u8]) -> Machine {
    let initrd = directory.join("initrd");
    fs::write(&initrd, ramdisk).unwrap();
    Machine { initrd: Some(initrd), ..Machine::of_build(&LINUX_6_12.build().directory).unwrap() }
}

#[test]
fn an_image_between_other_segments_is_found() {
    let work = tempfile::tempdir().unwrap();
    let (before, images) = parts();
    let file = work.path().join("of-this-host");
    fs::write(&file, "a file").unwrap();
    let archive = |script: &str| run(Command::new("sh").args(["-euc", script]).current_dir(work.path())).unwrap();
    archive("echo of-this-host | cpio --create --format=newc --quiet > plain; xz --check=crc32 --keep plain");
    let [plain, compressed] = ["plain", "plain.xz"].map(|name| fs::read(work.path().join(name)).unwrap());
    let zeros = |length: usize| vec![0; length.next_multiple_of(4) - length];
    // The image no longer begins on a page.
    let first = [&plain[..], &compressed, &zeros(compressed.len())].concat();
    let mut machine = machine(work.path(), &[&first[..], &images, &before, &compressed].concat());
    machine.append("firn.verify=full probe=facts");
    let report = boot(&machine).unwrap();
    assert_eq!(report.loop_files["loop0"], "/firmware/initrd");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

/// An iPXE script that does not know the path of a zero-copy image puts it there.
#[test]
fn an_image_at_the_root_of_the_ramdisk_is_copied() {
    let work = tempfile::tempdir().unwrap();
    let (mut ramdisk, _) = parts();
    let image = LINUX_6_12.build().directory.join("nix-store.squashfs");
    let pack = "echo nix-store.squashfs | cpio --create --format=newc --quiet --dereference > \"$0\"";
    let archive = work.path().join("image");
    run(Command::new("sh").args(["-euc", pack]).arg(&archive).current_dir(image.parent().unwrap())).unwrap();
    ramdisk.extend(fs::read(archive).unwrap());
    let mut machine = machine(work.path(), &ramdisk);
    machine.cmdline = machine.cmdline.replace(RETAIN, "probe=facts");
    let report = boot(&machine).unwrap();
    assert_eq!(report.loop_files["loop0"], "/nix-store.squashfs (deleted)");
}

#[test]
fn a_command_line_without_the_word() {
    let mut machine = Machine::of_build(&LINUX_6_12.build().directory).unwrap();
    assert!(machine.cmdline.contains(RETAIN));
    machine.cmdline = machine.cmdline.replace(RETAIN, "");
    fails(
        &machine,
        &[
            "in the step  image",
            "the store image /firn-retained/nix-store.squashfs is missing",
            "the kernel command line lacks retain_initrd",
            "or build with --image-placement copy",
        ],
    );
}

#[test]
fn a_kernel_that_keeps_no_ramdisk() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("firn.store=/firn-retained/nix-store.squashfs,/firn-retained/other retain_initrd");
    // The first image is found at the root of the ramdisk.
    fails(
        &machine,
        &["the store image /firn-retained/other is missing", "this kernel, 6.1.", "does not keep the ramdisk"],
    );
}

#[test]
fn a_ramdisk_without_the_image() {
    let work = tempfile::tempdir().unwrap();
    let (before, _) = parts();
    fails(
        &machine(work.path(), &before),
        &[
            "there is no store image /firn-retained/nix-store.squashfs, neither unpacked nor in the",
            "give the machine the whole ramdisk",
        ],
    );
}

#[test]
fn a_ramdisk_that_is_cut_off() {
    let work = tempfile::tempdir().unwrap();
    let machine = with_ramdisk(&LINUX_6_12, work.path(), |ramdisk| ramdisk.truncate(ramdisk.len() / 2));
    fails(
        &machine,
        &["in the step  image", "is incomplete", "bytes are there: the boot loader loaded only a part of the ramdisk"],
    );
}

#[test]
fn an_image_with_a_flipped_bit() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = with_ramdisk(&LINUX_6_12, work.path(), |ramdisk| {
        let middle = ramdisk.len() / 2;
        ramdisk[middle] ^= 1;
    });
    machine.append("firn.verify=full");
    fails(&machine, &["in the step  image", "is damaged: its SHA-256 is "]);
}
