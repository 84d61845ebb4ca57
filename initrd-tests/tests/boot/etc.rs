//! An `/etc` that is an overlay: on kernels with and without data-only layers, and on a root that stays.

use super::fixture::{Build, Fixture, boot, pack, run, sorted_lines, with_appended_to};
use super::{assert_succeeded, systemd};
use initrd_tests::Report;
use qemu::Machine;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

static NIXOS_INIT_6_1: Fixture = Fixture::of_kind("nixos-init", "6.1", "etc");

/// The system for nixos-init with the drivers of a disk.
pub static WITH_DISKS: LazyLock<Build> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-disks-nixos-init");
    pack(&systemd::NIXOS_INIT.build().manifest.toplevel, directory, &["virtio_blk", "virtio-pci"]).unwrap()
});

/// Boots a system with the probe as its init.
fn booted(fixture: &Fixture, words: &str) -> Report {
    booted_from(fixture, "probe", words)
}

/// Boots the system in a directory of the toplevel.
fn booted_from(fixture: &Fixture, directory: &str, words: &str) -> Report {
    let mut machine = Machine::of_build(&fixture.build().directory).unwrap();
    machine.append(&format!("init={}/{directory}/init firn.register=none {words}", fixture.build().manifest.toplevel));
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    report
}

/// The output of the group `etc` of the probe: names with modes, owners, sizes and targets; then contents.
fn shown(report: &Report) -> Vec<String> {
    let [names, contents] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_succeeded(names);
    assert_succeeded(contents);
    [sorted_lines(&names.stdout), sorted_lines(&contents.stdout)].concat()
}

#[test]
fn b_3_a_kernel_without_data_only_layers_shows_the_same_etc() {
    let (old, new) = (booted(&NIXOS_INIT_6_1, "probe=etc"), booted(&systemd::NIXOS_INIT, "probe=etc"));
    assert_eq!(shown(&old), shown(&new));
    for line in ["changes.d d 750 0:0", "changes.d/changed f 600 0:0 6", "./elsewhere:of the system"] {
        assert!(shown(&old).iter().any(|shown| shown.starts_with(line)), "{line} is not in {:#?}", shown(&old));
    }
    let layers = |report: &Report| {
        let etc = report.mounts.iter().find(|mount| mount.target == "/etc").unwrap();
        etc.super_options.split(',').find(|option| option.starts_with("lowerdir=")).unwrap().to_owned()
    };
    assert!(layers(&old).starts_with("lowerdir=/run/firn/etc:/run/nixos-etc-metadata:/nix/store/"), "{}", layers(&old));
    assert!(layers(&new).starts_with("lowerdir=/run/nixos-etc-metadata::/nix/store/"), "{}", layers(&new));
    // It is not asked for them: it would log that as an error.
    assert!(!old.dmesg.iter().any(|line| line.text.contains("empty lowerdir")), "{:#?}", old.dmesg);
}

#[test]
fn d_2_links_of_the_toplevel_name_the_parts_of_etc() {
    let (linked, named) =
        (booted_from(&systemd::NIXOS_INIT, "linked", "probe=etc"), booted(&systemd::NIXOS_INIT, "probe=etc"));
    assert_eq!((&linked.boot["hand_over"], &named.boot["hand_over"]), (&"prepare-root".into(), &"nixos-init".into()));
    assert_eq!(shown(&linked), shown(&named));
}

#[test]
fn b_3_an_etc_that_cannot_be_written_to_without_data_only_layers() {
    let report = booted(&NIXOS_INIT_6_1, "firn.etc=immutable probe=etc");
    let etc = report.mounts.iter().find(|mount| mount.target == "/etc").unwrap();
    assert_eq!((etc.kind.as_str(), etc.options.as_str()), ("overlay", "ro,nosuid,nodev,relatime"));
    assert!(shown(&report).iter().any(|line| line == "./changes.d/changed:first"), "{:#?}", shown(&report));
}

/// Prints the files that the boots change, and changes them at the end of the first two.
const SCRIPT: &str = r#"
cd /etc
boot=$(($(cat /boots 2> /dev/null || echo 0) + 1))
grep -rs "" changes.d contents deleted edited made.d returns.d | sort
case $boot in
    1)
        mkdir made.d
        echo own > made.d/own
        echo own > edited
        rm -r deleted returns.d
        mkdir returns.d
        echo own > returns.d/own
        ;;
    2)
        mkdir made.d/deep
        echo own > made.d/deep/own
        ;;
esac
echo $boot > /boots
sync
"#;

/// The contents of `/etc` in the two systems, without those of the user.
const FIRST: [&str; 2] = ["changes.d/changed:first", "changes.d/first:first"];
const LATER: [&str; 3] = ["changes.d/changed:later", "made.d/later:later", "returns.d/later:later"];

/// Boots five times from the same disk, with a later system in the middle.
fn five_boots(build: &Build) {
    let work: TempDir = tempfile::tempdir().unwrap();
    let disk: PathBuf = work.path().join("disk");
    run(Command::new("/sbin/mkfs.ext4").arg("-q").arg(&disk).arg("64M")).unwrap();
    fs::write(work.path().join("firn-test"), SCRIPT).unwrap();
    with_appended_to(build, work.path(), "install -D ../firn-test firn/root/firn-test");
    let boots = |system: &str, words: &str, expected: &[&[&str]]| {
        let mut machine = Machine::of_build(&build.directory).unwrap();
        machine.initrd = Some(work.path().join("initrd"));
        machine.disks.push(disk.clone());
        machine.append(&format!("init={}/{system}/init boot.persistence=/dev/vda probe=host", build.manifest.toplevel));
        machine.append(words);
        let report = boot(&machine).unwrap();
        let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
        let mut expected = expected.concat();
        expected.sort_unstable();
        assert_eq!(script.stdout.lines().collect::<Vec<_>>(), expected, "{system} {words} {script:#?}");
        report
    };
    let of_system = ["returns.d/file:of the system"];
    let of_user = ["edited:own", "made.d/own:own", "returns.d/own:own"];
    let (both, deep) = ([&of_system[..], &of_user].concat(), ["made.d/deep/own:own"]);
    boots("probe", "", &[&FIRST, &of_system, &["deleted:of the system", "edited:of the system"]]);
    // The directory that was deleted and made again has the files of the system again.
    boots("probe", "", &[&FIRST, &both]);
    let report = boots("later", "", &[&LATER, &both, &deep]);
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    // A disk that takes no changes.
    let report = boots("later", "boot.persistence.opt=ro", &[&LATER, &both, &deep]);
    assert!(report.mounts.iter().any(|mount| mount.target == "/etc" && mount.options.starts_with("rw")));
    boots("probe", "", &[&FIRST, &both, &deep]);
}

#[test]
fn b_11_an_etc_on_a_disk_over_five_boots_with_a_system_change_between() {
    five_boots(&WITH_DISKS);
}

#[test]
#[ignore = "slow: run by initrd-tests/run --all"]
fn b_11_an_etc_on_a_disk_over_five_boots_without_data_only_layers() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-disks-nixos-init-6.1");
    five_boots(&pack(&NIXOS_INIT_6_1.build().manifest.toplevel, directory, &["virtio_blk", "virtio-pci"]).unwrap());
}
