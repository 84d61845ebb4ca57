//! The files of one host, appended to a ramdisk that many hosts use.

use super::failures::fails;
use super::fixture::{Fixture, boot, with_appended};
use super::{LINUX_6_1, systemd};
use initrd_tests::Report;
use qemu::Machine;
use std::path::Path;

/// The machine of a fixture with files of its host in the ramdisk, which is made in the directory `work`.
fn machine(fixture: &Fixture, work: &Path) -> Machine {
    with_appended(
        fixture,
        work,
        "umask 077 && mkdir -p firn/root/etc/ssh .initrd-secrets/etc && echo key > firn/root/etc/ssh/key && \
         chown 12:34 firn/root/etc/ssh/key && echo secret > .initrd-secrets/etc/secret && chmod 640 .initrd-secrets/etc/secret",
    )
}

#[test]
fn what_is_appended_to_the_ramdisk_is_in_the_root() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = machine(&LINUX_6_1, work.path());
    machine.append("probe=files");
    files_are_there(&boot(&machine).unwrap());
}

fn files_are_there(report: &Report) {
    let [stat, cat] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    let expected = "755 0:0 /etc\n700 0:0 /etc/ssh\n600 12:34 /etc/ssh/key\n640 0:0 /etc/secret\n";
    assert_eq!(stat.stdout, expected, "{stat:#?}");
    assert_eq!(cat.stdout, "key\nsecret\n", "{cat:#?}");
}

#[test]
fn an_etc_that_is_an_overlay_takes_files_unless_it_is_immutable() {
    let (work, fixture) = (tempfile::tempdir().unwrap(), &systemd::NIXOS_INIT);
    let mut machine = machine(fixture, work.path());
    machine.append(&format!("init={}/probe/init firn.register=none probe=files", fixture.build().manifest.toplevel));
    files_are_there(&boot(&machine).unwrap());

    machine.append("firn.etc=immutable");
    let advice = "remove firn.etc=immutable from the kernel command line, or put the file elsewhere";
    let below = "copying the files below /firn/root";
    fails(&machine, &["in the step  files", below, advice, "copying /etc/ssh", "Read-only file system"]);
}
