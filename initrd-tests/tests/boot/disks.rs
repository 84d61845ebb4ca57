//! A root on a disk that belongs to another system, that is full, or that is read-only; and a store that is not registered.

use super::failures::fails;
use super::fixture::{boot, run, sorted_lines};
use super::modules::WITH_DISKS;
use super::{LINUX_6_1, etc};
use initrd_tests::Report;
use qemu::Machine;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// An ext4 in a file.
struct Disk {
    directory: TempDir,
}

impl Disk {
    /// A file system of 64 MiB that holds the files that a shell script makes in its directory.
    fn new(mkfs: &str, script: &str) -> Self {
        let disk = Self { directory: tempfile::tempdir().unwrap() };
        let script =
            format!("mkdir tree && (cd tree && {script}) && /sbin/mkfs.ext4 -q -L state -d tree {mkfs} disk 64M");
        disk.shell(&script);
        disk
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// Runs a shell script in the directory of the file `disk`.
    fn shell(&self, script: &str) -> String {
        run(Command::new("sh").args(["-euc", script]).current_dir(&self.directory)).unwrap()
    }

    /// Runs a shell script with the mounted disk as its directory.
    fn mounted(&self, script: &str) -> String {
        let mounted = format!("mkdir -p at; mount -o loop disk at; cd at; {script}");
        run(Command::new("unshare").args(["--mount", "sh", "-euc", &mounted]).current_dir(&self.directory)).unwrap()
    }

    fn machine(&self, words: &str) -> Machine {
        let mut machine = Machine::of_build(&WITH_DISKS.directory).unwrap();
        machine.disks.push(self.path());
        machine.append("boot.persistence=LABEL=state");
        machine.append(words);
        machine
    }
}

/// Checks that the boot logged an error or a warning with these words.
fn warned(report: &Report, words: &str) {
    let warnings = report.boot["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|warning| warning.as_str().unwrap().contains(words)), "no {words:?} in {warnings:#?}");
}

/// Checks the group `collect` of the probe: a garbage collection left every path of the closure, and the store can be registered.
fn is_whole(report: &Report, closure: &[String]) {
    let [_collect, list, load, verify, add] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    let there = sorted_lines(&list.stdout);
    let missing: Vec<_> = closure.iter().filter(|path| !there.contains(path)).collect();
    assert_eq!(missing, [""; 0], "{:#?}", report.commands);
    assert_eq!((load.status, verify.status, add.status), (Some(0), Some(0), Some(0)), "{:#?}", report.commands);
    assert!(!verify.stderr.contains("/nix/store/"), "{verify:#?}");
}

const OWN_SYSTEM: &str = "mkdir -p nix/store/aaa-nixos/sw nix/var/nix/db nix/var/nix/profiles && echo database > nix/var/nix/db/db.sqlite && \
     ln -s /nix/store/aaa-nixos nix/var/nix/profiles/system-42-link && ln -s system-42-link nix/var/nix/profiles/system";

/// Everything below /nix on the disk, apart from mount points.
fn nix_of(disk: &Disk) -> String {
    disk.mounted("find nix -printf '%p %l %s\\n' | grep -v 'nix/.r[ow]-store' | grep -v 'nix [0-9]*$' | sort; cat nix/var/nix/db/db.sqlite")
}

#[test]
fn a_3_a_disk_with_another_system_is_refused() {
    for (script, words) in [
        (OWN_SYSTEM, "has a Nix store (1 paths in /nix/store)"),
        ("mkdir -p usr/lib && echo ID=debian > usr/lib/os-release", "has an operating system (/usr/lib/os-release)"),
    ] {
        let disk = Disk::new("", script);
        let list = "find . -printf '%p %l %s\\n' | sort";
        let before = disk.mounted(list);
        fails(&disk.machine(""), &["in the step  root", "LABEL=state", words, "insist with firn.persistence=any"]);
        assert_eq!(disk.mounted(list), before);
    }
}

#[test]
fn a_3_whoever_insists_changes_no_database_and_no_profile_on_the_disk() {
    let disk = Disk::new("", OWN_SYSTEM);
    let before = nix_of(&disk);
    let report = boot(&disk.machine("firn.persistence=any probe=verify")).unwrap();
    assert_eq!(report.paths["/nix/var/nix/profiles/system"].as_ref(), Some(&WITH_DISKS.manifest.toplevel));
    let [verify] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert!(verify.status == Some(0) && !verify.stderr.contains("/nix/store/"), "{verify:#?}");
    warned(&report, "its store is hidden");
    assert_eq!(nix_of(&disk), before);
}

#[test]
fn a_3_the_database_of_a_disk_is_never_deleted() {
    let disk = Disk::new("", "mkdir -p nix/.rw-store nix/var/nix/db && echo precious > nix/var/nix/db/db.sqlite");
    boot(&disk.machine("firn.register=required probe=facts")).unwrap();
    assert_eq!(disk.mounted("cat nix/var/nix/db/db.sqlite"), "precious\n");
}

#[test]
fn a_4_an_unregistered_store_is_not_deleted() {
    let build = LINUX_6_1.build();
    let mut machine = Machine::of_build(&build.directory).unwrap();
    machine.append("firn.register=none probe=collect");
    let report = boot(&machine).unwrap();
    assert_ne!(report.commands[0].status, Some(0), "{:#?}", report.commands[0]);
    is_whole(&report, &build.closure);
}

#[test]
fn a_4_on_a_disk_without_room_the_store_is_registered_in_memory() {
    let disk = after_first_boot();
    disk.mounted(&format!("{FILL} && truncate -s -60K full"));
    let report = boot(&disk.machine("probe=collect")).unwrap();
    warned(&report, "is full");
    assert_eq!(report.commands[0].status, Some(0), "{:#?}", report.commands[0]);
    is_whole(&report, &WITH_DISKS.closure);
}

/// A disk after a first boot, which has the profile of another toplevel. Made once.
fn after_first_boot() -> Disk {
    static DISK: LazyLock<Disk> = LazyLock::new(|| {
        let disk = Disk::new("-N 600", ":");
        boot(&disk.machine("probe=sync")).unwrap();
        disk.mounted("ln -sfn /nix/store/other nix/var/nix/profiles/system-1-link");
        disk
    });
    let copy = Disk { directory: tempfile::tempdir().unwrap() };
    fs::copy(DISK.path(), copy.path()).unwrap();
    copy
}

/// Boots another image from a disk that a script fills.
fn boots(script: &str, words: &str, warning: &str) -> (Disk, Report) {
    let disk = after_first_boot();
    disk.mounted(script);
    let report = boot(&disk.machine(&format!("{words} probe=collect"))).unwrap();
    warned(&report, warning);
    assert_eq!(report.paths["/nix/var/nix/profiles/system"].as_ref(), Some(&WITH_DISKS.manifest.toplevel));
    is_whole(&report, &WITH_DISKS.closure);
    (disk, report)
}

const FILL: &str = "(dd if=/dev/zero of=full bs=1k status=none 2>&1 || true) | grep 'No space'";
const FILL_INODES: &str =
    "mkdir full && (seq 999999 | (cd full && xargs touch) 2> /dev/null || true); test $(stat -f -c %d .) = 0";

#[test]
fn a_5_a_full_disk_boots_another_image() {
    let (disk, _) = boots(FILL, "", "is full (");
    // With room again, the next boot keeps its changes on the disk.
    disk.mounted("rm full");
    let report = boot(&disk.machine("probe=sync")).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    assert_eq!(disk.mounted("readlink nix/var/nix/profiles/system"), "system-2-link\n");
}

#[test]
fn a_5_a_full_disk_boots_without_registration() {
    let (_, report) = boots(FILL, "firn.register=none", "is full (");
    assert!(report.paths["/nix/var/nix/db/db.sqlite"].is_none());
}

#[test]
fn a_5_a_disk_without_inodes_boots_another_image() {
    boots(FILL_INODES, "", "is full (");
}

#[test]
fn a_5_a_disk_that_is_mounted_read_only() {
    boots(":", "boot.persistence.opt=ro", "takes no changes (it is read-only)");
}

/// Boots for the first time from a disk, all changes of which are in memory.
fn boots_in_memory(disk: &Disk, warning: &str) {
    let report = boot(&disk.machine("probe=collect")).unwrap();
    warned(&report, warning);
    let root = report.mounts.iter().find(|mount| mount.target == "/").unwrap();
    assert_eq!(root.kind, "overlay");
    assert!(report.mounts.iter().any(|mount| mount.target == "/run/firn/disk" && mount.kind == "ext4"));
    is_whole(&report, &WITH_DISKS.closure);
}

#[test]
fn a_5_a_disk_that_was_full_before_the_first_boot() {
    let disk = Disk::new("", ":");
    disk.mounted(FILL);
    boots_in_memory(&disk, "No space left on device");
}

#[test]
fn a_5_an_overlay_for_etc_above_an_overlay_for_the_root() {
    let build = &*etc::WITH_DISKS;
    let toplevel = &build.manifest.toplevel;
    let disk = Disk::new("", ":");
    disk.mounted(FILL);
    let mut machine = Machine { disks: vec![disk.path()], ..Machine::of_build(&build.directory).unwrap() };
    machine.append(&format!("boot.persistence=/dev/vda init={toplevel}/probe/init probe=facts"));
    let report = boot(&machine).unwrap();
    assert_eq!(report.paths["/etc/NIXOS"].as_deref(), Some("/etc/NIXOS"));
    assert!(report.mounts.iter().any(|mount| mount.target == "/etc" && mount.options.starts_with("rw")));
    warned(&report, "No space left on device");
}

#[test]
fn a_5_a_disk_that_cannot_be_written() {
    let disk = Disk::new("", ":");
    fs::set_permissions(disk.path(), Permissions::from_mode(0o444)).unwrap();
    boots_in_memory(&disk, "takes no changes");
}

#[test]
fn b_11_a_disk_that_lost_its_power_and_cannot_be_written() {
    let disk = Disk::new("", ":");
    // A copy of a disk in use: its journal has changes to replay.
    disk.mounted("echo old > file; sync; echo new > file; sync; cp ../disk ../in-use");
    disk.shell("mv in-use disk; chmod 444 disk; /sbin/dumpe2fs -h disk 2> /dev/null | grep -q needs_recovery");
    boots_in_memory(&disk, "takes no changes");
}

#[test]
fn a_5_a_disk_that_becomes_read_only_after_an_error() {
    let disk = Disk::new("-b 4096 -e remount-ro", ":");
    // A damaged bitmap of inodes: the kernel finds it when the first file is made.
    let bitmap =
        disk.shell("/sbin/dumpe2fs disk 2> /dev/null | sed -n 's/.*Inode bitmap at \\([0-9]*\\).*/\\1/p' | head -n 1");
    disk.shell(&format!("dd if=/dev/urandom of=disk bs=4096 seek={} count=1 conv=notrunc status=none", bitmap.trim()));
    boots_in_memory(&disk, "takes no changes");
}
