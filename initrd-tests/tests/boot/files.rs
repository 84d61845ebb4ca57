//! A host's own files, appended to a ramdisk that many hosts have in common.

use super::LINUX_6_1;
use super::fixture::{boot, with_appended};

#[test]
fn what_is_appended_to_the_ramdisk_is_in_the_root() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = with_appended(
        &LINUX_6_1,
        work.path(),
        "umask 077 && mkdir -p firn/root/etc/ssh .initrd-secrets/etc && echo key > firn/root/etc/ssh/key && \
         chown 12:34 firn/root/etc/ssh/key && echo secret > .initrd-secrets/etc/secret && chmod 640 .initrd-secrets/etc/secret",
    );
    machine.append("probe=files");
    let report = boot(&machine).unwrap();
    let [stat, cat] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_eq!(
        stat.stdout, "755 0:0 /etc\n700 0:0 /etc/ssh\n600 12:34 /etc/ssh/key\n640 0:0 /etc/secret\n",
        "{stat:#?}"
    );
    assert_eq!(cat.stdout, "key\nsecret\n", "{cat:#?}");
}
