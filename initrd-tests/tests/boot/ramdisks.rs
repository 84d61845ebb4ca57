//! Ramdisks that others made, good and bad: the files that the kernel makes of them are those that firn shows and unpacks.

use super::fixture::run;
use firn::inspect::ramdisk::Ramdisk;
use firn::inspect::unpack::unpack;
use qemu::{Exit, Machine};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const FILE: u32 = 0o100_644;
const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;

/// Prints all files below the current directory, a line for each fact about one. Directories have a size and a number of links that
/// depend on the file system.
const LIST: &str = "/bin/busybox find . -xdev | /bin/busybox sort | while read -r f; do
    if [ -L \"$f\" ]; then echo \"T $f $(/bin/busybox stat -c '%F %u:%g %h' \"$f\") $(/bin/busybox readlink \"$f\")\"
    elif [ -d \"$f\" ]; then echo \"T $f $(/bin/busybox stat -c '%F %a %u:%g' \"$f\")\"
    elif [ -f \"$f\" ]; then
        echo \"T $f $(/bin/busybox stat -c '%F %a %u:%g %s %h' \"$f\") $(/bin/busybox md5sum < \"$f\")\"
    else echo \"T $f $(/bin/busybox stat -c '%F %a %u:%g %h %t,%T' \"$f\")\"; fi
done";

/// A member of an archive.
struct Raw<'a> {
    magic: &'a str,
    name: &'a [u8],
    mode: u32,
    links: u32,
    inode: u32,
    device: (u32, u32),
    contents: &'a [u8],
    checksum: u32,
}

const RAW: Raw =
    Raw { magic: "070701", name: b"", mode: FILE, links: 1, inode: 1, device: (0, 0), contents: b"", checksum: 0 };

impl Raw<'_> {
    fn bytes(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let (name, size, (major, minor)) = (length(self.name) + 1, length(self.contents), self.device);
        let numbers = [self.inode, self.mode, 7, 8, self.links, 9, size, 3, 4, major, minor, name, self.checksum];
        let mut bytes = self.magic.as_bytes().to_vec();
        bytes.extend(numbers.iter().flat_map(|number| format!("{number:08x}").into_bytes()));
        for part in [&[self.name, b"\0"].concat()[..], self.contents] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

fn member(name: &str, mode: u32, contents: &[u8]) -> Vec<u8> {
    Raw { name: name.as_bytes(), mode, contents, ..RAW }.bytes()
}

fn link(name: &str, inode: u32, contents: &[u8]) -> Vec<u8> {
    Raw { name: name.as_bytes(), links: 2, inode, contents, ..RAW }.bytes()
}

fn node(name: &str, mode: u32, device: (u32, u32)) -> Vec<u8> {
    Raw { name: name.as_bytes(), mode, device, ..RAW }.bytes()
}

fn trailer() -> Vec<u8> {
    member("TRAILER!!!", 0, b"")
}

fn packed(command: &str, input: &[u8]) -> Vec<u8> {
    let mut shell = Command::new("sh");
    let mut child = shell.args(["-euc", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}");
    let mut bytes = output.stdout;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Members that the kernel takes, drops and misunderstands, of which none stops it.
fn hostile() -> Vec<u8> {
    let console = node("dev/console", 0o020_666, (9, 9));
    [
        member("a", DIRECTORY, b""),
        member("a/file", FILE, b"first"),
        member("a/file", 0o104_755, b"second, longer"),
        member(&"n".repeat(5200), FILE, b"too long"),
        member(&"p".repeat(256), FILE, b"too long for a directory"),
        member(&"p".repeat(255), FILE, b"just right"),
        // The order of find -depth.
        member("deep/er/file", FILE, b"x"),
        member("deep/er", DIRECTORY, b""),
        member("deep", 0o041_777, b""),
        // Every way through the tree.
        member("/etc", DIRECTORY, b""),
        member("//etc//./absolute", FILE, b"1"),
        member("../../etc/above", FILE, b"2"),
        member("etc/../around", FILE, b"3"),
        member("way", SYMLINK, b"/etc"),
        member("way/through", FILE, b"4"),
        member("up", SYMLINK, b"../.."),
        member("up/top", FILE, b"5"),
        member("loop", SYMLINK, b"loop"),
        member("loop/file", FILE, b"6"),
        member("dangling", SYMLINK, b"nowhere"),
        member("dangling/file", FILE, b"7"),
        member("dangling", FILE, b"a file over a link"),
        member("around/file", FILE, b"8"),
        member("etc/slash/", FILE, b"9"),
        member("etc/directory/", DIRECTORY, b""),
        member("way/", DIRECTORY, b""),
        member(".", 0o040_711, b""),
        member(".", FILE, b"10"),
        // One over the other.
        member("file", FILE, b"x"),
        member("file", DIRECTORY, b""),
        member("empty", DIRECTORY, b""),
        member("empty", FILE, b"over a directory"),
        member("full", DIRECTORY, b""),
        member("full/file", FILE, b"x"),
        member("full", FILE, b"over a directory"),
        member("full", SYMLINK, b"a"),
        member("gone", FILE, b"x"),
        member("gone", 0, b""),
        member("gone2", FILE, b"x"),
        member("gone2", SYMLINK, b""),
        member("target", SYMLINK, &[b't'; 4095]),
        member("target2", SYMLINK, &[b't'; 4096]),
        member("target3", SYMLINK, &[b't'; 4097]),
        member("nul", SYMLINK, b"be\0hind"),
        Raw { name: b"name\0behind", contents: b"x", ..RAW }.bytes(),
        member("with-contents", DIRECTORY, b"x"),
        // Devices.
        console,
        node("pipe", 0o010_600, (0, 0)),
        node("socket", 0o140_600, (0, 0)),
        node("block", 0o060_640, (8, 1)),
        node("block", 0o060_600, (8, 2)),
        member("strange", 0o030_644, b""),
        // Files with several names.
        link("l1", 11, b""),
        link("l2", 11, b"the contents"),
        link("l3", 12, b"the contents"),
        link("l4", 12, b""),
        link("twice", 13, b"x"),
        link("twice", 13, b"y"),
        link("old", 14, b"x"),
        member("old", SYMLINK, b"/etc/through-a-link"),
        link("new", 14, b"written"),
        link("l5", 11, b"again"),
        trailer(),
        link("l6", 11, b"another"),
        // A checksum.
        Raw { magic: "070702", name: b"checked", contents: b"12345", checksum: 255, ..RAW }.bytes(),
    ]
    .concat()
}

/// A ramdisk of all kinds of segments.
fn ramdisk() -> Vec<u8> {
    let script =
        format!("#!/bin/sh\n/bin/busybox dmesg -n 1\ncd /\necho\n{LIST}\necho the end\n/bin/busybox poweroff -f\n");
    let mut bytes = [
        member("bin", DIRECTORY, b""),
        member("bin/busybox", 0o100_755, &fs::read("/bin/busybox").unwrap()),
        member("bin/sh", SYMLINK, b"busybox"),
        member("init", 0o100_755, script.as_bytes()),
    ]
    .concat();
    // Without a trailer, and with zeros behind it, as iPXE leaves archives in memory.
    bytes.extend([0; 512]);
    bytes.extend(hostile());
    for (name, command) in [
        ("gzip", "gzip"),
        ("xz", "xz --check=crc32"),
        ("zstd", "zstd"),
        ("lz4", "lz4 -l; printf '\\0\\0\\0\\0'"),
        ("xz-none", "xz --check=none"),
        ("lzma", "xz --format=lzma"),
        ("bzip2", "bzip2"),
    ] {
        let archive = [
            member(name, DIRECTORY, b""),
            member(&format!("{name}/file"), FILE, name.as_bytes()),
            trailer(),
            vec![0; 512],
            member(&format!("{name}/large"), FILE, &vec![b'x'; 300_000]),
            member(&format!("{name}/no/file"), FILE, b"x"),
        ];
        bytes.extend(packed(command, &archive.concat()));
        bytes.extend([0; 8]);
        bytes.extend(member(&format!("{name}/behind"), FILE, b""));
    }
    // The kernel stops here.
    bytes.extend(b"junk");
    bytes.extend(member("never", FILE, b""));
    bytes
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| Some(line.trim_end().strip_prefix("T ")?.to_owned())).collect()
}

fn is_made_as_firn_says(kernel: &str) {
    let work = tempfile::tempdir().unwrap();
    let initrd = work.path().join("initrd");
    fs::write(&initrd, ramdisk()).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu/kernel");
    let kernel = run(Command::new(file).arg(kernel)).unwrap();
    let mut machine = Machine::new(Path::new(kernel.trim()).join("bzImage"));
    machine.initrd = Some(initrd.clone());
    machine.time_limit = Duration::from_mins(2);
    machine.cmdline = "rdinit=/init".into();
    let outcome = machine.run().unwrap();
    assert!(outcome.exit == Exit::Ended && outcome.console.contains("the end"), "{}", outcome.console);
    assert!(outcome.console.contains("unpacking failed: invalid magic at start of"), "{}", outcome.console);
    let mut of_kernel = lines(&outcome.console);
    assert!(of_kernel.remove("./gone2 symbolic link 7:8 1"));

    let (opened, tree) = (Ramdisk::open(&initrd).unwrap(), work.path().join("tree"));
    let contents = unpack(&opened, &tree, &mut |member| {
        // No system call of a program makes a symbolic link without a target.
        assert_eq!(member.path, Path::new("gone2"));
    })
    .unwrap();
    assert!(contents.stop.unwrap().reason.contains("invalid magic at start of compressed archive"));
    // The kernel has these itself.
    for (path, mode) in [("root", "700"), ("dev", "755")] {
        let path = tree.join(path);
        fs::create_dir_all(&path).unwrap();
        run(Command::new("chmod").arg(mode).arg(path)).unwrap();
    }
    let of_firn = lines(&run(Command::new("/bin/busybox").args(["sh", "-euc", LIST]).current_dir(&tree)).unwrap());
    let only = |of: &BTreeSet<String>, other: &BTreeSet<String>| of.difference(other).cloned().collect::<Vec<_>>();
    assert_eq!(
        (only(&of_kernel, &of_firn), only(&of_firn, &of_kernel)),
        (vec![], vec![]),
        "files of the kernel alone, and of firn alone"
    );
    assert!(of_kernel.len() > 60, "{of_kernel:?}");

    // The list of firn has the same files; the last one at a path counts.
    let mut listed = BTreeMap::new();
    opened
        .walk(&mut |member, _| {
            listed.insert(member.fate.place.clone().unwrap(), member.mode & 0o7777);
            Ok(())
        })
        .unwrap();
    for (place, _) in listed {
        let place = tree.join(place.strip_prefix("/").unwrap());
        let gone = ["gone", "gone2", "twice"].iter().any(|name| place.ends_with(name));
        assert_eq!(fs::symlink_metadata(&place).is_err(), gone, "{}", place.display());
    }
}

#[test]
fn c_7_the_kernel_makes_the_files_that_firn_lists_on_6_1() {
    is_made_as_firn_says("6.1");
}

#[test]
fn c_7_the_kernel_makes_the_files_that_firn_lists_on_7() {
    is_made_as_firn_says("7");
}
