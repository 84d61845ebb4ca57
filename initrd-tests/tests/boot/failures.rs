//! Boots that fail: each says in which step and why, and then does what `panic=` asks for.

use super::fixture::{pack, run};
use super::{LINUX_6_1, LINUX_6_12};
use qemu::{Exit, Machine, Outcome};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Boots a machine in vain: checks that its console shows these words, in this order, and that the kernel panics then, as
/// the machine's `panic=-1` asks for.
fn fails(machine: &Machine, words: &[&str]) -> Outcome {
    let outcome = machine.run().unwrap();
    let mut rest = outcome.console.as_str();
    for word in ["firn-init: the boot failed."]
        .iter()
        .chain(words)
        .chain(&["Kernel panic - not syncing: Attempted to kill init"])
    {
        let found = rest.find(word);
        let Some(found) = found else {
            panic!("no {word:?}, or not in this place; the console ends with:\n{}", outcome.last_words())
        };
        rest = &rest[found + word.len()..];
    }
    assert_eq!(outcome.exit, Exit::Ended);
    outcome
}

/// The machine of the fixture with a ramdisk that something was done to.
fn with_ramdisk(directory: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Machine {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
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
    let there = format!("the store image holds init={}", build.manifest.init);
    fails(
        &machine,
        &["in the step  system", "looking for the init /nix/store/no-such-system/init", &there, "No such file"],
    );
}

#[test]
fn a_machine_that_is_not_to_panic_waits() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("init=relative panic=0");
    machine.time_limit = Duration::from_secs(40);
    let outcome = machine.run().unwrap();
    assert_eq!(outcome.exit, Exit::TimedOut);
    for word in ["the path is relative", "The machine waits. Ctrl-Alt-Del reboots it"] {
        assert!(outcome.console.contains(word), "no {word:?}; the console ends with:\n{}", outcome.last_words());
    }
    assert!(!outcome.console.contains("Kernel panic"));
}

#[test]
fn a_ramdisk_that_is_cut_short() {
    let directory = tempfile::tempdir().unwrap();
    let image = LINUX_6_1.build().manifest.files.iter().find(|file| file.name == "nix-store.squashfs").unwrap().bytes;
    let machine = with_ramdisk(directory.path(), |ramdisk| ramdisk.truncate(ramdisk.len() / 2));
    let size = format!("of {image} bytes are there");
    fails(&machine, &["in the step  store", "/nix-store.squashfs is not whole", &size, "Initramfs unpacking failed"]);
}

#[test]
fn an_image_without_a_superblock() {
    let directory = tempfile::tempdir().unwrap();
    let machine = with_ramdisk(directory.path(), |ramdisk| {
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
    let runs = format!("the kernel that runs is {}", other.manifest.kernel_release);
    let made = format!("the ramdisk was built for {}", built.manifest.kernel_release);
    fails(&machine, &["in the step  plan", &runs, &made]);
}

#[test]
fn an_init_whose_interpreter_is_missing_and_no_nix() {
    let directory = tempfile::tempdir().unwrap();
    let (system, demo) = (directory.path().join("broken"), Path::new(&LINUX_6_1.build().manifest.toplevel));
    fs::create_dir(&system).unwrap();
    fs::write(system.join("init"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(system.join("init"), PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["kernel-params", "nixos-version", "system"] {
        fs::copy(demo.join(name), system.join(name)).unwrap();
    }
    for name in ["kernel", "kernel-modules"] {
        symlink(demo.join(name), system.join(name)).unwrap();
    }
    let toplevel = run(Command::new("nix-store").arg("--add").arg(&system)).unwrap();
    let build = pack(toplevel.trim(), directory.path().join("build")).unwrap();

    let mut machine = Machine::of_build(&build.directory).unwrap();
    let init = format!("executing {}/init; if it is there, its interpreter", toplevel.trim());
    // A machine without Nix gets as far as that: what it cannot do is an error in the log.
    let no_nix = "sw/bin/nix-store: No such file or directory";
    let outcome = fails(&machine, &["in the step  hand-over", &init, "No such file"]);
    let before = outcome.console.split("the boot failed.").next().unwrap();
    for word in ["The store is not registered and Nix will not know its paths", no_nix, "The boot goes on"] {
        assert!(before.contains(word), "no {word:?}; the console says:\n{before}");
    }

    machine.append("firn.register=required");
    fails(&machine, &["in the step  registration", "firn.register=required", "sw/bin/nix-store", "No such file"]);
}
