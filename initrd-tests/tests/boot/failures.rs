//! Boots that fail: each message names the step and the reason, and then `panic=` decides.

use super::fixture::{Fixture, boot, with_appended};
use super::{LINUX_6_1, LINUX_6_12};
use qemu::{Exit, Machine, Outcome};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Boots a machine that must fail: checks that its console shows these texts, in this order, and that the kernel then panics because
/// of the machine's `panic=-1`.
pub fn fails(machine: &Machine, words: &[&str]) -> Outcome {
    let outcome = machine.run().unwrap();
    shows(
        &outcome,
        &[&["firn-init: the boot failed."], words, &["Kernel panic - not syncing: Attempted to kill init"]].concat(),
    );
    assert_eq!(outcome.exit, Exit::Ended);
    outcome
}

/// Checks that the console shows these texts, in this order.
pub fn shows(outcome: &Outcome, words: &[&str]) {
    let mut rest = outcome.console.as_str();
    for word in words {
        let found = rest.find(word);
        let Some(found) = found else {
            panic!("no {word:?}, or not in this place; the console ends with:\n{}", outcome.last_words())
        };
        rest = &rest[found + word.len()..];
    }
}

/// The machine of the fixture with a changed ramdisk.
pub fn with_ramdisk(fixture: &Fixture, directory: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Machine {
    let mut machine = Machine::of_build(&fixture.build().directory).unwrap();
    let mut ramdisk = fs::read(machine.initrd.unwrap()).unwrap();
    change(&mut ramdisk);
    let path = directory.join("initrd");
    fs::write(&path, ramdisk).unwrap();
    machine.initrd = Some(path);
    machine
}

#[test]
fn an_init_that_is_not_there() {
    let build = LINUX_6_1.build();
    let mut machine = Machine::of_build(&build.directory).unwrap();
    machine.append("init=/nix/store/no-such-system/init");
    let there = format!("the store image contains init={}", build.manifest.init);
    fails(
        &machine,
        &["in the step  system", "looking for the init /nix/store/no-such-system/init", &there, "No such file"],
    );
}

#[test]
fn a_machine_that_is_not_to_panic_waits() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("init=relative panic=0");
    // Neither the key of a shell that is not enabled nor an arrow key is an answer to the menu.
    machine.when("any other key: try this step again", "i");
    machine.when("any other key: try this step again", "\x1b[A");
    machine.time_limit = Duration::from_secs(40);
    let outcome = machine.run().unwrap();
    assert_eq!(outcome.exit, Exit::TimedOut);
    for word in [
        "the path is relative",
        "There is no shell: to allow one, add boot.shell_on_fail",
        "r  reboot",
        "any other key: try this step again",
    ] {
        assert!(outcome.console.contains(word), "no {word:?}; the console ends with:\n{}", outcome.last_words());
    }
    assert_eq!(outcome.console.matches("firn-init: the boot failed.").count(), 1);
    assert_eq!(outcome.console.matches("any other key").count(), 2);
    assert!(!outcome.console.contains("Kernel panic"));
}

#[test]
fn a_ramdisk_that_did_not_unpack_for_lack_of_memory() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    // A tmpfs may use half of the memory. If that is too little, the kernel only logs it and goes on.
    machine.append("rootfstype=tmpfs");
    machine.memory_mib = 160;
    fails(
        &machine,
        &[
            "in the step  image",
            "is incomplete",
            "or give the machine more memory",
            "MiB of memory are free; this ramdisk needs about",
            "Initramfs unpacking failed: write error",
        ],
    );
}

#[test]
fn an_image_with_a_flipped_bit_in_its_middle() {
    let directory = tempfile::tempdir().unwrap();
    let mut machine = with_ramdisk(&LINUX_6_1, directory.path(), |ramdisk| {
        let middle = ramdisk.len() / 2;
        ramdisk[middle] ^= 1;
    });
    machine.append("firn.verify=full");
    fails(
        &machine,
        &["in the step  image", "/nix-store.squashfs is damaged: its SHA-256 is ", "load the ramdisk again"],
    );
}

#[test]
fn an_image_of_another_file_system() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = with_appended(&LINUX_6_1, work.path(), "truncate -s 1M other && mke2fs -q -F other");
    machine.append("firn.store=/other");
    fails(
        &machine,
        &[
            "in the step  image",
            "the store image /other is an ext2, ext3 or ext4 file system, but firn-init mounts only squashfs and erofs",
        ],
    );
}

#[test]
fn no_store_image() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("firn.store=/no-such.squashfs");
    fails(
        &machine,
        &["in the step  image", "there is no store image /no-such.squashfs in the ramdisk", "with firn.store="],
    );
}

/// A machine with a plan that `sed` changed.
pub fn with_plan(work: &Path, sed: &str) -> Machine {
    let build = LINUX_6_1.build();
    let mut machine = with_appended(
        &LINUX_6_1,
        work,
        &format!(
            "mkdir firn && zstd --decompress --stdout '{}' 2> /dev/null | cpio --extract --quiet --to-stdout firn/plan.json > plan; \
         sed '{sed}' plan > firn/plan.json && rm plan",
            build.directory.join("initrd").display()
        ),
    );
    machine.append("firn.register=none");
    machine
}

#[test]
fn a_plan_of_another_version() {
    let work = tempfile::tempdir().unwrap();
    let machine = with_plan(work.path(), "s/\"version\": [0-9]*/\"version\": 7/");
    fails(
        &machine,
        &["in the step  plan", "reading /firn/plan.json", "made this plan in format 7", "build the ramdisk again"],
    );
}

#[test]
fn a_plan_that_is_none() {
    let work = tempfile::tempdir().unwrap();
    let machine = with_plan(work.path(), "/image/,$d");
    fails(&machine, &["in the step  plan", "reading /firn/plan.json", "EOF while parsing"]);
}

#[test]
fn a_module_that_is_not_there() {
    let work = tempfile::tempdir().unwrap();
    let machine = with_plan(work.path(), "s/overlay.ko/overleaf.ko/");
    fails(&machine, &["in the step  modules", "overleaf.ko", "the ramdisk has no such file", "No such file"]);
}

#[test]
fn no_loop_devices() {
    let work = tempfile::tempdir().unwrap();
    let machine = with_plan(work.path(), "/loop.ko/d");
    fails(&machine, &["in the step  store", "/dev/loop-control: this kernel has no loop devices"]);
}

#[test]
fn no_overlay() {
    let work = tempfile::tempdir().unwrap();
    let machine = with_plan(work.path(), "/overlay.ko/d; s/squashfs.ko\",/squashfs.ko\"/");
    fails(&machine, &["in the step  store", "mount -t overlay", "this kernel has no file system overlay"]);
}

#[test]
fn a_module_of_another_kernel() {
    let work = tempfile::tempdir().unwrap();
    let module = |fixture: &'static Fixture| {
        let manifest = &fixture.build().manifest;
        let module = manifest.modules.iter().find(|module| module.contains("/loop.ko")).unwrap();
        (format!("{}/kernel-modules{module}", manifest.toplevel), module)
    };
    let ((_, here), (other, _)) = (module(&LINUX_6_1), module(&LINUX_6_12));
    let machine = with_appended(
        &LINUX_6_1,
        work.path(),
        &format!("mkdir -p .$(dirname {here}) && xz --decompress --stdout {other}.xz > .{here}"),
    );
    fails(&machine, &["in the step  modules", "loop.ko", "the file is not a module for this kernel", "ENOEXEC"]);
}

#[test]
fn a_module_that_the_kernel_refuses() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    // The demo's modules have no signatures.
    machine.append("module.sig_enforce=1");
    fails(&machine, &["in the step  modules", "loop.ko", "this kernel accepts only signed modules"]);
}

#[test]
fn an_init_that_is_a_directory() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append(&format!("init={}", LINUX_6_1.build().manifest.toplevel));
    fails(&machine, &["in the step  system", "looking for the init", "it is a directory; did you mean"]);
}

#[test]
fn a_registration_that_has_no_room() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("firn.root.size=64k firn.register=required");
    fails(
        &machine,
        &[
            "in the step  registration",
            "the root is full",
            "firn.root.size=",
            "copying the Nix database of the ramdisk",
        ],
    );
}

#[test]
fn a_countdown() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("init=relative panic=0 firn.on_failure=poweroff,2");
    // Noise on the line does not stop it.
    machine.when("is switched off in 2 s", "\x01\x7f");
    let outcome = machine.run().unwrap();
    assert_eq!(outcome.exit, Exit::Ended);
    for word in
        ["the path is relative", "is switched off in 2 s, as the kernel command line asks", "reboot: Power down"]
    {
        assert!(outcome.console.contains(word), "no {word:?}; the console ends with:\n{}", outcome.last_words());
    }
    assert!(!outcome.console.contains("Kernel panic"));
}

#[test]
fn garbage_on_the_command_line() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("\"\" = == \"=\" \u{e4}\u{f6}=\u{fc} firn. firn.= firn.log firn.log= firn.root.size=\"80 %\" rd. boot. --x init");
    // The kernel itself fails with more than 2,047 bytes, and with more than 32 unknown parameters without a dot.
    let words: Vec<_> = (0..200).map(|number| format!("w.{number}")).collect();
    machine.append(&words.join(" "));
    machine.append("firn.register=none probe=facts");
    let report = boot(&machine).unwrap();
    let warnings: Vec<_> =
        report.boot["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    assert!(warnings.iter().all(|warning| warning.starts_with("Ignoring the kernel parameter firn.")), "{warnings:#?}");
}

#[test]
fn a_ramdisk_that_is_cut_short() {
    let directory = tempfile::tempdir().unwrap();
    let image = LINUX_6_1.build().manifest.files.iter().find(|file| file.name == "nix-store.squashfs").unwrap().bytes;
    let machine = with_ramdisk(&LINUX_6_1, directory.path(), |ramdisk| ramdisk.truncate(ramdisk.len() / 2));
    let size = format!("of {image} bytes are there");
    fails(&machine, &["in the step  image", "/nix-store.squashfs is incomplete", &size, "Initramfs unpacking failed"]);
}

#[test]
fn an_image_without_a_superblock() {
    let directory = tempfile::tempdir().unwrap();
    let machine = with_ramdisk(&LINUX_6_1, directory.path(), |ramdisk| {
        let superblock = ramdisk.windows(4).position(|bytes| bytes == b"hsqs").unwrap();
        ramdisk[superblock] ^= 1;
    });
    fails(&machine, &["in the step  store", "mount -t squashfs", "Can't find a SQUASHFS superblock on loop0"]);
}

#[test]
fn a_kernel_that_the_ramdisk_was_not_built_for() {
    let (other, built) = (LINUX_6_12.build(), LINUX_6_1.build());
    let mut machine = Machine::of_build(&built.directory).unwrap();
    machine.kernel = other.directory.join("bzImage");
    let runs = format!("the running kernel is {}", other.manifest.kernel_release);
    let made = format!("the ramdisk and its modules are built for {}", built.manifest.kernel_release);
    fails(&machine, &["in the step  plan", &runs, &made]);
}
