//! Zero-copy store images that the boot loader loaded in another order than firn's, or not at all; and machines whose command line
//! others wrote.

use super::failures::fails;
use super::fixture::{Fixture, boot, run};
use super::{LINUX_6_1, LINUX_6_12, LINUX_7};
use firn::contract::parameters::RETAIN;
use firn::contract::place::{INITRD, ZERO_COPY};
use initrd_tests::Report;
use qemu::Machine;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The parts of a ramdisk: the file for zero copy, the bytes before the store images, and an archive with the store images.
fn parts() -> [Vec<u8>; 3] {
    let build = LINUX_6_12.build();
    let mut before = fs::read(build.directory.join("initrd")).unwrap();
    let images = before.split_off(usize::try_from(build.manifest.before_images).unwrap());
    [fs::read(build.directory.join(ZERO_COPY)).unwrap(), before, images]
}

/// The machine of a fixture with this ramdisk.
fn machine_of(fixture: &Fixture, directory: &Path, ramdisk: &[u8]) -> Machine {
    let initrd = directory.join("initrd");
    fs::write(&initrd, ramdisk).unwrap();
    Machine { initrd: Some(initrd), ..Machine::of_build(&fixture.build().directory).unwrap() }
}

/// The machine with Linux 6.12, this ramdisk and the word for zero copy.
fn machine(directory: &Path, ramdisk: &[u8]) -> Machine {
    let mut machine = machine_of(&LINUX_6_12, directory, ramdisk);
    machine.append(RETAIN);
    machine
}

/// Boots the ramdisk alone with the command lines of public tools, none of which has a word of firn's.
fn d_1_boots_with_lines_of_others(fixture: &Fixture) {
    let init = &fixture.build().manifest.init;
    for line in [
        // The NixOS wiki, and its pages on Matchbox and netboot.xyz.
        format!("init={init} loglevel=4"),
        // GRUB, which puts the path of the kernel first.
        format!("BOOT_IMAGE=/boot/bzImage init={init} loglevel=4"),
        // pixiecore --cmdline, whose iPXE script names its ramdisk.
        format!("initrd=initrd0 init={init} loglevel=4"),
    ] {
        let machine = Machine::of_build(&fixture.build().directory).unwrap();
        let report = boot(&Machine { cmdline: format!("{line} probe=facts"), ..machine }).unwrap();
        assert!(report.cmdline.ends_with(&format!("{line} probe=facts")), "{}", report.cmdline);
        is_registered(fixture, &report);
        assert_eq!(report.boot["images"][0]["source"], "/nix-store.squashfs", "{line}");
        assert_eq!(report.boot["warnings"], serde_json::json!([]), "{line}");
    }
}

fn is_registered(fixture: &Fixture, report: &Report) {
    let toplevel = Some(&fixture.build().manifest.toplevel);
    for path in ["/nix/var/nix/profiles/system", "/run/current-system"] {
        assert_eq!(report.paths[path].as_ref(), toplevel, "{path}");
    }
    assert!(report.paths["/nix/var/nix/db/db.sqlite"].is_some());
}

#[test]
fn d_1_lines_of_others_on_6_1() {
    d_1_boots_with_lines_of_others(&LINUX_6_1);
}

#[test]
fn d_1_lines_of_others_on_6_12() {
    d_1_boots_with_lines_of_others(&LINUX_6_12);
}

#[test]
fn d_1_lines_of_others_on_7() {
    d_1_boots_with_lines_of_others(&LINUX_7);
}

/// The kernel unpacks the image and keeps the ramdisk.
#[test]
fn d_1_the_word_without_the_file_frees_one_of_two_copies() {
    let mut machine = Machine::of_build(&LINUX_6_12.build().directory).unwrap();
    machine.append("retain_initrd probe=facts");
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["images"][0]["source"], INITRD);
    let warnings = report.boot["warnings"].as_array().unwrap();
    let [warning] = &**warnings else { panic!("{warnings:#?}") };
    assert!(warning.as_str().unwrap().contains("was in memory twice"), "{warning}");
    // None of it is left in the initramfs.
    assert!(report.meminfo["Unevictable"] < 256, "{:#?}", report.meminfo);
}

#[test]
fn an_image_between_other_segments_is_found() {
    let work = tempfile::tempdir().unwrap();
    let [zero_copy, before, images] = parts();
    let file = work.path().join("of-this-host");
    fs::write(&file, "a file").unwrap();
    let archive = |script: &str| run(Command::new("sh").args(["-euc", script]).current_dir(work.path())).unwrap();
    archive("echo of-this-host | cpio --create --format=newc --quiet > plain; xz --check=crc32 --keep plain");
    let [plain, compressed] = ["plain", "plain.xz"].map(|name| fs::read(work.path().join(name)).unwrap());
    let zeros = |length: usize| vec![0; length.next_multiple_of(4) - length];
    // The image no longer begins on a page.
    let first = [&plain[..], &compressed, &zeros(compressed.len())].concat();
    let ramdisk = [&zero_copy[..], &first, &images, &before, &compressed].concat();
    let mut machine = machine(work.path(), &ramdisk);
    machine.append("firn.verify=full probe=facts");
    let report = boot(&machine).unwrap();
    assert_eq!(report.loop_files["loop0"], "/firmware/initrd");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

/// A boot loader that sorts its files by name loads it last.
#[test]
fn d_1_the_file_for_zero_copy_works_at_the_end() {
    let work = tempfile::tempdir().unwrap();
    let [zero_copy, before, images] = parts();
    let mut machine = machine(work.path(), &[before, images, zero_copy].concat());
    machine.append("probe=facts");
    let report = boot(&machine).unwrap();
    assert_eq!(report.loop_files["loop0"], "/firmware/initrd");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

/// The kernel searches the front of the ramdisk for microcode and tables of the firmware, before it unpacks anything.
#[test]
fn d_1_what_the_kernel_reads_early_is_found_behind_the_file() {
    let work = tempfile::tempdir().unwrap();
    let [zero_copy, before, images] = parts();
    // An SSDT without contents: signature, size, revision, checksum, three names, and revisions.
    let mut table = b"SSDT\x24\0\0\0\x02\0FIRN  FIRNTEST\x01\0\0\0FIRN\x01\0\0\0".to_vec();
    table[9] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    fs::create_dir_all(work.path().join("kernel/firmware/acpi")).unwrap();
    fs::write(work.path().join("kernel/firmware/acpi/test.aml"), table).unwrap();
    let pack = "find kernel | sort | cpio --create --format=newc --quiet > early";
    run(Command::new("sh").args(["-euc", pack]).current_dir(work.path())).unwrap();
    let early = fs::read(work.path().join("early")).unwrap();
    let mut machine = machine(work.path(), &[zero_copy, early, before, images].concat());
    machine.append("probe=facts");
    let report = boot(&machine).unwrap();
    let found = |text: &str| report.dmesg.iter().any(|line| line.text.contains(text));
    assert!(found("SSDT ACPI table found in initrd [kernel/firmware/acpi/test.aml][0x24]"), "{:#?}", report.dmesg);
    assert_eq!(report.loop_files["loop0"], "/firmware/initrd");
}

#[test]
fn d_1_a_command_line_without_the_word_for_the_file() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = machine(work.path(), &parts().concat());
    machine.cmdline = machine.cmdline.replace(RETAIN, "");
    fails(
        &machine,
        &[
            "in the step  image",
            "the store image /nix-store.squashfs is missing: zero-copy.cpio was loaded",
            "the kernel command line lacks retain_initrd; add it to the line of the boot loader",
            "netboot.ipxe",
            "or boot without zero-copy.cpio",
        ],
    );
}

#[test]
fn a_kernel_that_keeps_no_ramdisk() {
    let work = tempfile::tempdir().unwrap();
    let [zero_copy, ..] = parts();
    let ramdisk = fs::read(LINUX_6_1.build().directory.join("initrd")).unwrap();
    let mut machine = machine_of(&LINUX_6_1, work.path(), &[zero_copy, ramdisk].concat());
    machine.append(RETAIN);
    fails(
        &machine,
        &["the store image /nix-store.squashfs is missing", "this kernel, 6.1.", "does not keep the ramdisk"],
    );
}

#[test]
fn a_ramdisk_without_the_image() {
    let work = tempfile::tempdir().unwrap();
    let [zero_copy, before, _] = parts();
    fails(
        &machine(work.path(), &[zero_copy, before].concat()),
        &[
            "there is no store image /nix-store.squashfs, neither unpacked nor in the",
            "give the machine the whole ramdisk",
        ],
    );
}

#[test]
fn a_ramdisk_that_is_cut_off() {
    let work = tempfile::tempdir().unwrap();
    let mut ramdisk = parts().concat();
    ramdisk.truncate(ramdisk.len() / 2);
    fails(
        &machine(work.path(), &ramdisk),
        &["in the step  image", "is incomplete", "bytes are there: the boot loader loaded only a part of the ramdisk"],
    );
}

#[test]
fn an_image_with_a_flipped_bit() {
    let work = tempfile::tempdir().unwrap();
    let mut ramdisk = parts().concat();
    let middle = ramdisk.len() / 2;
    ramdisk[middle] ^= 1;
    let mut machine = machine(work.path(), &ramdisk);
    machine.append("firn.verify=full");
    fails(&machine, &["in the step  image", "is damaged: its SHA-256 is "]);
}
