//! Machines with several consoles, with a console that does not exist, and with consoles that stay silent.

use super::LINUX_6_1;
use super::failures::shows;
use super::fixture::{boot, report, run};
use super::modules::WITH_DISKS;
use firn::inspect::ramdisk::Ramdisk;
use firn::inspect::unpack;
use qemu::{Exit, Machine};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Gives the machine these parameters in place of all of its consoles. Its serial port still shows the start of the kernel's log.
fn with_consoles(machine: &mut Machine, words: &str) {
    machine.own_parameters = "earlyprintk=ttyS0 panic=-1";
    let others: Vec<_> = machine.cmdline.split(' ').filter(|word| !word.starts_with("console=")).collect();
    machine.cmdline = format!("{} {words}", others.join(" "));
}

/// The ramdisk of another maker, without `/dev`: only the kernel adds `/dev/console`.
fn without_dev(initrd: &Path, work: &Path) {
    let tree = work.join("tree");
    unpack::unpack(&Ramdisk::open(initrd).unwrap(), &tree, &mut |entry| panic!("left out: {entry:?}")).unwrap();
    fs::remove_dir_all(tree.join("dev")).unwrap();
    let pack = "find . -print0 | cpio --null --create --format=newc --quiet > ../initrd";
    run(Command::new("sh").args(["-euc", pack]).current_dir(tree)).unwrap();
}

#[test]
fn b_11_without_a_console_the_init_still_gets_three_descriptors() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    without_dev(machine.initrd.as_deref().unwrap(), work.path());
    machine.initrd = Some(work.path().join("initrd"));
    // /dev/console cannot be opened: neither by the kernel, nor by stage 1.
    with_consoles(&mut machine, "console=null probe=facts");
    let report = boot(&machine).unwrap();
    let warned = |text: &str| report.dmesg.iter().any(|line| line.text.contains(text));
    assert!(
        warned("unable to open an initial console") && warned("Opening /dev/console for the system's init: No such")
    );
    for number in 0..3 {
        assert_eq!(report.pid1.files[&number], "/dev/null", "{:#?}", report.pid1);
    }
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

#[test]
fn b_11_a_failed_boot_with_a_dead_console_reboots() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    // The kernel has this port as its console, and every read and write of it is an error.
    with_consoles(&mut machine, "console=ttyS3 panic=0 init=relative firn.on_failure=reboot,2");
    assert_eq!(machine.run().unwrap().exit, Exit::Ended);
}

#[test]
fn b_11_a_console_of_a_driver_in_the_ramdisk_shows_the_reasons() {
    let work = tempfile::tempdir().unwrap();
    let console = work.path().join("hvc0");
    let mut machine = Machine::of_build(&WITH_DISKS.directory).unwrap();
    machine.append("console=hvc0 init=relative panic=0");
    machine.arguments =
        ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=hvc0", "-chardev"].map(Into::into).into();
    machine.arguments.push(format!("file,id=hvc0,path={}", console.display()));
    machine.when("any other key: ", "r");
    let outcome = machine.run().unwrap();
    assert_eq!(outcome.exit, Exit::Ended, "{}", outcome.last_words());
    let there = fs::read_to_string(console).unwrap();
    for text in ["because  the path is relative", "any other key: try this step again"] {
        assert!(outcome.console.contains(text) && there.contains(text), "no {text:?}; hvc0 has: {there}");
    }
}

#[test]
fn b_11_a_quiet_boot_says_nothing_and_a_failed_one_everything() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("quiet probe=facts");
    let outcome = machine.run().unwrap();
    report(&outcome).unwrap();
    assert!(!outcome.console.contains("firn-init"), "{}", outcome.last_words());

    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("quiet loglevel=0 init=relative panic=0 firn.on_failure=poweroff");
    shows(
        &machine.run().unwrap(),
        &["firn-init: the boot failed.", "because  the path is relative", "The machine is switched off"],
    );
}
