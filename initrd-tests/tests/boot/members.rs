//! Disks that are members of something else, made by their own tools: firn refuses those that libblkid calls members or ambivalent.

use super::failures::fails;
use super::fixture::run;
use super::modules::WITH_DISKS;
use firn::formats::disk::{self, Contents, Source};
use qemu::{Exit, Machine};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;

/// The versions of the metadata of md.
const VERSIONS: [&str; 4] = ["0.90", "1.0", "1.1", "1.2"];

/// The images, made once: those of `initrd-tests/disks`, and `md-VERSION`.
static DISKS: LazyLock<PathBuf> = LazyLock::new(|| {
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-disks");
    // One of an earlier run may be there.
    run(Command::new("rm").arg("-rf").arg(&work)).unwrap();
    fs::create_dir_all(&work).unwrap();
    run(Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("disks")).arg(&work)).unwrap();
    let disks = work.join("disks");
    for page in ["4096", "8192", "16384", "32768", "65536"] {
        made(&disks.join(format!("swap-{page}")), 80, &["/sbin/mkswap", "-q", "--pagesize", page]);
    }
    made(&disks.join("ext2"), 80, &["/sbin/mke2fs", "-q", "-t", "ext2", "-L", "state"]);
    made(&disks.join("ext3"), 80, &["/sbin/mke2fs", "-q", "-t", "ext3", "-L", "state"]);
    made(&disks.join("ext4"), 80, &["/sbin/mke2fs", "-q", "-t", "ext4", "-L", "state"]);
    made(&disks.join("journal"), 80, &["/sbin/mke2fs", "-q", "-O", "journal_dev"]);
    make_md(&work, &disks);
    disks
});

/// Makes an image of this size, MiB.
fn made(image: &Path, size: u64, command: &[&str]) {
    File::create(image).unwrap().set_len(size << 20).unwrap();
    run(Command::new(command[0]).args(&command[1..]).arg(image)).unwrap();
}

/// Makes members of RAID1 with an ext4 in a guest: the host's kernel may have no md.
fn make_md(work: &Path, disks: &Path) {
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu/kernel");
    let kernel = run(Command::new(kernel).arg("6.1")).unwrap();
    let kernel = Path::new(kernel.trim());
    let modules = "cd \"$1\"
        release=$(ls \"$0\"/lib/modules)
        cp -a \"$0\"/lib/modules ../kernel-modules && mkdir -p ../kernel/lib && mv ../kernel-modules ../kernel/lib/modules
        depmod -b ../kernel \"$release\"
        for module in virtio_pci virtio_blk raid1; do
            modprobe --dirname ../kernel --set-version \"$release\" --show-depends $module
        done | sed -n 's/^insmod \\([^ ]*\\).*/\\1/p' | awk '!seen[$0]++' > ../modules
        mkdir -p modules dev proc sys bin sbin etc
        while read -r file; do cp \"$file\" modules && echo \"insmod /modules/${file##*/}\"; done < ../modules > insert
        cp /bin/busybox bin && ln -s busybox bin/sh
        cp -a ../lib ../lib64 . && cp ../sbin/mdadm sbin && cp ../usr/lib/x86_64-linux-gnu/libudev.so.1 lib
        { cat insert; cat ../script; } > rest
        { printf '#!/bin/sh -e\\n/bin/busybox --install -s /bin\\nmount -t devtmpfs dev /dev\\n'; cat rest; } > init && chmod +x init
        find . -print0 | cpio --null --create --format=newc --quiet | gzip -1 > ../initrd";
    let mut lines = Vec::new();
    for (disk, version) in ["vda", "vdb", "vdc", "vdd"].into_iter().zip(VERSIONS) {
        let options = format!("--run --force --metadata={version} --level=1 --raid-devices=2 /dev/{disk} missing");
        lines.push(format!("mdadm --create /dev/md9 {options}"));
        lines.push("dd if=/dev/vde of=/dev/md9 bs=1M\nsync\nmdadm --stop /dev/md9".into());
    }
    let lines = lines.join("\n");
    let start = "mount -t proc proc /proc\nmount -t sysfs sys /sys\nexport PATH=/bin:/sbin MDADM_NO_UDEV=1\n";
    fs::write(work.join("script"), format!("{start}{lines}\necho all are made\nsync\npoweroff -f\n")).unwrap();
    let tree = work.join("tree");
    fs::create_dir(&tree).unwrap();
    run(Command::new("sh").args(["-euc", modules]).arg(kernel).arg(&tree).current_dir(&tree)).unwrap();

    let mut machine = Machine::new(kernel.join("bzImage"));
    machine.initrd = Some(work.join("initrd"));
    machine.time_limit = Duration::from_mins(3);
    machine.cmdline = "rdinit=/init".into();
    for version in VERSIONS {
        let member = disks.join(format!("md-{version}"));
        File::create(&member).unwrap().set_len(80 << 20).unwrap();
        machine.disks.push(member);
    }
    let inside = work.join("inside");
    made(&inside, 64, &["/sbin/mke2fs", "-q", "-t", "ext4", "-L", "state"]);
    machine.disks.push(inside);
    let outcome = machine.run().unwrap();
    assert!(outcome.exit == Exit::Ended && outcome.console.contains("all are made"), "{}", outcome.console);
}

fn contents(image: &Path) -> Contents {
    let file = File::open(image).unwrap();
    let size = file.metadata().unwrap().len();
    let read = |buffer: &mut [u8], place: u64| file.read_exact_at(buffer, place);
    disk::recognize(&Source { size, is_disk: true, read: &read }).unwrap()
}

/// The verdict of firn in the words of [`libblkid`].
fn firn(image: &Path) -> String {
    let Contents { refusal, file_system } = contents(image);
    match (refusal, file_system) {
        (Some(refusal), _) if refusal.starts_with("of several kinds at once, ") => "ambivalent".into(),
        (Some(refusal), _) => format!("refused {}", refusal.rsplit_once(", ").unwrap().1),
        (None, Some(found)) => format!("{} {} {}", found.kind, found.uuid, found.label),
        (None, None) => "nothing to mount by name".into(),
    }
}

/// The verdict of libblkid: `man 8 blkid`.
fn libblkid(image: &Path) -> String {
    let output = Command::new("/sbin/blkid").args(["-p", "-o", "export"]).arg(image).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or("");
    match (output.status.code(), value("USAGE"), value("TYPE")) {
        (Some(8), ..) => "ambivalent".into(),
        (Some(0), "raid" | "crypto" | "other", kind) | (Some(0), _, kind @ "zfs_member") => format!("refused {kind}"),
        (Some(0), _, kind @ ("ext2" | "ext3" | "ext4" | "xfs" | "btrfs")) => {
            let kind = if kind.starts_with("ext") { "ext4" } else { kind };
            format!("{kind} {} {}", value("UUID"), value("LABEL"))
        }
        (Some(0 | 2), ..) => "nothing to mount by name".into(),
        other => panic!("{}: {other:?}", image.display()),
    }
}

/// The images, sorted by name.
fn images() -> Vec<PathBuf> {
    let mut images: Vec<_> = fs::read_dir(&*DISKS).unwrap().map(|entry| entry.unwrap().path()).collect();
    images.sort();
    images
}

#[test]
fn a_2_the_verdict_on_real_disks_is_that_of_libblkid() {
    let mut verdicts = Vec::new();
    for image in images() {
        assert_eq!(firn(&image), libblkid(&image), "{}", image.display());
        verdicts.push((image.file_name().unwrap().to_str().unwrap().to_owned(), firn(&image)));
    }
    let of = |name: &str| verdicts.iter().find(|(other, _)| other == name).map(|(_, verdict)| verdict.as_str());
    for (name, expected) in [
        ("md-0.90", "linux_raid_member"),
        ("md-1.0", "linux_raid_member"),
        ("md-1.1", "linux_raid_member"),
        ("md-1.2", "linux_raid_member"),
        ("drbd-v08", "drbd"),
        ("drbd-v09", "drbd"),
        ("lvm2", "LVM2_member"),
        ("luks1", "crypto_LUKS"),
        ("luks2", "crypto_LUKS"),
        ("luks2-second", "crypto_LUKS"),
        ("bcache", "bcache"),
        ("zfs", "zfs_member"),
        ("swap-65536", "swap"),
    ] {
        assert_eq!(of(name), Some(&*format!("refused {expected}")), "{name}");
    }
}

#[test]
fn a_2_the_verdict_on_disks_with_leftovers_is_that_of_libblkid() {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut ambivalent = 0;
    for image in images() {
        let name = image.file_name().unwrap().to_str().unwrap().to_owned();
        let copy = work.path().join(&name);
        if image.metadata().unwrap().len() < 1 << 20 {
            continue;
        }
        // A later file system over all of it, and the superblocks of another one beside its own.
        for block in ["1024", "4096"] {
            run(Command::new("cp").arg("--sparse=always").arg(&image).arg(&copy)).unwrap();
            run(Command::new("/sbin/mke2fs").args(["-q", "-F", "-t", "ext4", "-b", block]).arg(&copy)).unwrap();
            assert_eq!(firn(&copy), libblkid(&copy), "ext4 over {name}");
        }
        for (other, place, length) in [("ext4", 0x400, 0x400), ("btrfs", 0x1_0000, 0x1000), ("xfs", 0, 0x200)] {
            run(Command::new("cp").arg("--sparse=always").arg(&image).arg(&copy)).unwrap();
            let mut bytes = vec![0; length];
            File::open(DISKS.join(other)).unwrap().read_exact_at(&mut bytes, place).unwrap();
            File::options().write(true).open(&copy).unwrap().write_all_at(&bytes, place).unwrap();
            assert_eq!(firn(&copy), libblkid(&copy), "the superblock of {other} on {name}");
            ambivalent += usize::from(firn(&copy) == "ambivalent");
        }
        fs::remove_file(copy).unwrap();
    }
    assert!(ambivalent > 10, "{ambivalent}");
}

/// A machine with copies of these images as its disks.
fn machine(images: &[&str]) -> (TempDir, Machine) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut machine = Machine::of_build(&WITH_DISKS.directory).unwrap();
    for image in images {
        let copy = directory.path().join(image);
        run(Command::new("cp").arg("--sparse=always").arg(DISKS.join(image)).arg(&copy)).unwrap();
        machine.disks.push(copy);
    }
    (directory, machine)
}

#[test]
fn a_2_a_member_of_a_raid_is_refused_and_not_written_to() {
    let (_directory, mut machine) = machine(&["md-1.0"]);
    machine.append("boot.persistence=/dev/vda");
    let words = [
        "in the step  root",
        "waiting for the device /dev/vda of boot.persistence=",
        "/dev/vda is not mounted: it is a member of a Linux RAID, linux_raid_member",
        "wipefs",
    ];
    fails(&machine, &words);
    run(Command::new("cmp").arg(&machine.disks[0]).arg(DISKS.join("md-1.0"))).unwrap();
}

#[test]
fn a_2_the_label_inside_of_a_member_is_no_label_of_its_disk() {
    let (_directory, mut machine) = machine(&["md-0.90", "swap-4096"]);
    machine.append("boot.persistence=LABEL=state rootwait=2");
    let words = [
        "in the step  root",
        "it did not appear in 2 s; this machine has /dev/vda LABEL=state",
        "(a member of a Linux RAID, linux_raid_member), /dev/vdb (swap space, swap)",
        "it is inside of /dev/vda, which is a member of a Linux RAID",
    ];
    fails(&machine, &words);
    run(Command::new("cmp").arg(&machine.disks[0]).arg(DISKS.join("md-0.90"))).unwrap();
}
