//! firn as a process: what it prints, what it needs, how it fails.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Runs a script with `$firn` in it, in a directory.
fn bash(directory: &Path, script: &str) -> Output {
    let mut bash = Command::new("bash");
    bash.args(["-o", "pipefail", "-euc", script]).current_dir(directory).env("firn", env!("CARGO_BIN_EXE_firn"));
    bash.output().unwrap()
}

/// What a script prints that succeeds.
fn printed(directory: &Path, script: &str) -> String {
    let output = bash(directory, script);
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that a command fails with one line on standard error that has these words.
fn refused(directory: &Path, command: &str, words: &[&str]) {
    let output = bash(directory, command);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{command}: {error}");
    assert_eq!(error.lines().count(), 1, "{command}: {error}");
    for word in words {
        assert!(error.contains(word), "{command}: no {word:?} in {error}");
    }
}

fn header(path: &str, mode: u32, bytes: u64) -> Vec<u8> {
    let name = path.len() + 1;
    let header = format!(
        "070701{0:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{bytes:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name:08x}{0:08x}{path}\0",
        0, 1
    );
    let mut header = header.into_bytes();
    header.resize(header.len().next_multiple_of(4), 0);
    header
}

#[test]
fn a_store_image_of_3_gib_is_not_held_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let image = 3 << 30;
    let plan = format!(
        r#"{{"version": 4, "firn": "x", "kernel_release": "6.9", "init": "/x/init", "modules": [],
             "images": [{{"path": "/nix-store.squashfs", "bytes": {image}, "sha256": "00"}}]}}"#
    );
    let mut initrd = File::create(directory.path().join("initrd")).unwrap();
    initrd.write_all(&header("firn", 0o040_755, 0)).unwrap();
    initrd.write_all(&header("firn/plan.json", 0o100_444, plan.len() as u64)).unwrap();
    initrd.write_all(plan.as_bytes()).unwrap();
    initrd.write_all(&vec![0; plan.len().next_multiple_of(4) - plan.len()]).unwrap();
    initrd.write_all(&header("nix-store.squashfs", 0o100_444, image)).unwrap();
    initrd.seek(SeekFrom::Current(image.cast_signed())).unwrap();
    initrd.write_all(&header("TRAILER!!!", 0, 0)).unwrap();
    let bytes = initrd.metadata().unwrap().len();
    let manifest = format!(
        r#"{{"cmdline": "init=/x/init", "init": "/x/init", "kernel_release": "6.9", "files": [{{"name": "initrd", "bytes": {bytes}, "sha256": "00"}}]}}"#
    );
    fs::write(directory.path().join("manifest.json"), manifest).unwrap();
    fs::write(directory.path().join("bzImage"), "a kernel").unwrap();

    let limited = |command: &str| printed(directory.path(), &format!("ulimit -v {}; {command}", 64 << 10));
    assert!(limited("$firn ls .").contains("  3221225472 nix-store.squashfs\n"));
    assert!(limited("$firn inspect .").contains("3.0 GiB"));
    assert_eq!(limited("$firn cat initrd /nix-store.squashfs | wc --bytes"), "3221225472\n");
    // Both checksums are wrong, and that is known only after reading all of it.
    let findings = limited("$firn verify --json . 2> progress || test $? = 1");
    assert_eq!(findings.matches("its SHA-256 is ").count(), 2, "{findings}");

    // Programs get a line at the start, one at the end, and four a second at most in between.
    let output = fs::read_to_string(directory.path().join("progress")).unwrap();
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<serde_json::Value> = lines.map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], last["bytes"].as_u64()), (&serde_json::json!(true), Some(bytes)));
    assert!(lines.iter().map(|line| line["bytes"].as_u64()).is_sorted(), "{output}");
    assert!(lines.iter().any(|line| line["done"] == false && line["seconds_left"].is_u64()), "{output}");
    let quarters = Duration::from_secs_f64(last["seconds"].as_f64().unwrap()).as_millis() / 250;
    assert!(lines.len() as u128 <= quarters + 3, "{output}");
    // People get a bar.
    let command = "stty columns 100; timeout 2 $firn verify . || test $? -gt 0";
    let bar = printed(directory.path(), &format!("script --quiet --return --command '{command}' /dev/null"));
    assert!(bar.contains("/3.00 GiB, ") && bar.contains("s left"), "{bar}");
}

#[test]
fn a_reader_that_goes_away() {
    let directory = tempfile::tempdir().unwrap();
    printed(
        directory.path(),
        "mkdir tree; cd tree; touch {1..9999}; head --bytes=300000 /dev/zero > large; \
         ls | cpio --create --format=newc --quiet > ../initrd",
    );
    for command in ["ls initrd", "ls --json initrd", "cat initrd large", "completions bash"] {
        // head reads one byte, and what is left is more than a pipe holds
        printed(directory.path(), &format!("$firn {command} | head --bytes=1"));
    }
}

#[test]
fn whoever_is_not_root_unpacks_what_is_no_device() {
    let directory = tempfile::tempdir().unwrap();
    let members = [header("null", 0o020_666, 0), header("file", 0o104_755, 0), header("socket", 0o140_755, 0)];
    fs::write(directory.path().join("initrd"), members.concat()).unwrap();
    let output = printed(
        directory.path(),
        "cp $firn .; chmod 777 .; nobody=; ((EUID)) || nobody='setpriv --reuid=65534 --regid=65534 --clear-groups'; \
         $nobody ./firn unpack initrd out 2>&1; cd out; stat --format='%n %a' *",
    );
    assert_eq!(
        output,
        "firn: left out null: only root can make device nodes\n\
         file 755\nsocket 755\n"
    );
}

#[test]
fn completions_and_manual_pages() {
    let directory = tempfile::tempdir().unwrap();
    printed(
        directory.path(),
        "$firn completions bash > firn.bash; bash -n firn.bash; $firn completions zsh; $firn man man",
    );
    let pages = printed(directory.path(), "ls man");
    assert!(pages.contains("firn.1\n") && pages.contains("firn-verify.1\n"), "{pages}");
    assert!(fs::read_to_string(directory.path().join("man/firn-ls.1")).unwrap().contains("\n.SH SYNOPSIS\n"));
}

#[test]
fn what_cannot_be_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    printed(
        directory.path(),
        "echo 'not a ramdisk' > text; mkdir empty full; touch full/x; mkfifo pipe; echo '{' > full/manifest.json; \
         echo text | cpio --create --format=newc --quiet > initrd; head --bytes=100 initrd > cut; printf MZ > program.efi; mkdir tree; \
         mksquashfs tree image -quiet -no-progress",
    );
    for (command, words) in [
        ("inspect nothing", &["opening nothing", "No such file"][..]),
        ("inspect empty", &["empty/manifest.json", "give a directory made by `firn build`"]),
        ("inspect full", &["full/manifest.json is damaged or is not a manifest", "build the system again"]),
        ("inspect text", &["text: at offset 0", "is this file a ramdisk?"]),
        ("ls nothing", &["opening nothing", "No such file"]),
        ("ls empty", &["opening empty/initrd"]),
        ("ls /dev/null", &["/dev/null is no regular file", "copy its contents into a file"]),
        ("ls cut", &["cut: at offset 0, the kernel stops unpacking the ramdisk", "ends within a header"]),
        ("cat initrd nothing", &["there is no nothing in initrd", "firn ls shows"]),
        ("unpack initrd full", &["full is not empty", "give a new directory"]),
        ("unpack initrd text", &["reading text; give a new directory"]),
        ("inspect program.efi", &["it is no program for UEFI, or it is cut off"]),
        ("diff text initrd", &["text: at offset 0"]),
        ("diff initrd image", &["initrd is a ramdisk and image is a store image: compare two builds"]),
        ("verify initrd", &["initrd is a file; verify needs a directory made by `firn build`"]),
        ("verify empty", &["empty/manifest.json"]),
        ("boot empty", &["empty/manifest.json"]),
        ("man text/x", &["writing man pages to text/x", "give a writable directory"]),
    ] {
        refused(directory.path(), &format!("$firn {command}"), words);
    }
}

/// Each tool goes on after a segment that firn cannot unpack and after members that the kernel drops, and names them.
#[test]
fn c_7_one_segment_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    printed(
        directory.path(),
        "mkdir a b c d; for name in a b c d; do echo $name > $name/file; done
         pack() { printf '%s\\n' \"$@\" | cpio --create --format=newc --quiet; }
         { pack a a/file; printf '\\211LZO\\0\\r\\n\\032\\n'; } > initrd; truncate --size %4 initrd
         { pack c/file c; pack b b/file | bzip2; pack d d/file | xz --format=lzma; } >> initrd",
    );
    let both = |command: &str| printed(directory.path(), &format!("$firn {command} 2>&1"));
    let warned = |output: &str| {
        assert!(output.contains("it is compressed with lzo, which firn does not unpack"), "{output}");
        assert!(output.contains("where the next segment seems to begin"), "{output}");
    };
    let listed = both("ls initrd");
    warned(&listed);
    for name in [" a/file", " c\n", " c/file", " b/file", " d/file"] {
        assert!(listed.contains(name), "{name}: {listed}");
    }
    warned(&both("inspect initrd"));
    assert!(both("cat initrd d/file").contains("d\n"));
    warned(&both("unpack initrd out"));
    assert_eq!(printed(directory.path(), "cat out/a/file out/d/file"), "a\nd\n");

    // In the order of find -depth, without an unknown segment before.
    let depth =
        printed(directory.path(), "find a -depth | cpio --create --format=newc --quiet > depth; $firn ls depth 2>&1");
    assert!(
        depth.contains("firn: depth: at offset 0: the kernel makes no a/file: its directory /a does not exist"),
        "{depth}"
    );
    assert!(!depth.contains(" a/file\n"), "{depth}");
}

#[test]
fn c_7_where_the_kernel_stops_every_tool_fails() {
    let directory = tempfile::tempdir().unwrap();
    printed(
        directory.path(),
        "echo 1 > first; echo 2 > second; pack() { echo $1 | cpio --create --format=newc --quiet; }
         { pack first; pack second | xz; } > initrd",
    );
    for command in [
        "ls initrd > /dev/null",
        "inspect initrd > /dev/null",
        "unpack initrd out",
        "diff initrd initrd",
        "cat initrd first",
    ] {
        refused(directory.path(), &format!("$firn {command}"), &["initrd: at offset 512, the kernel stops", "CRC64"]);
    }
    assert_eq!(printed(directory.path(), "ls out; $firn cat initrd first 2> /dev/null || true"), "first\n1\n");
}

#[test]
fn c_7_no_tool_waits_for_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    printed(directory.path(), "mkfifo pipe; mkdir build; mkfifo build/initrd");
    for command in
        ["ls pipe", "inspect pipe", "cat pipe x", "unpack pipe out", "diff pipe pipe", "ls build", "ls /dev/zero"]
    {
        refused(
            directory.path(),
            &format!("timeout 10 $firn {command}"),
            &["is no regular file", "copy its contents into a file"],
        );
    }
    for command in ["ls", "inspect"] {
        let command = format!("sleep 20 | timeout 10 $firn {command} /dev/stdin & wait $!");
        refused(directory.path(), &command, &["/dev/stdin is no regular file"]);
    }
}

#[test]
fn c_7_names_in_warnings_do_not_change_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let name = "no/\x1b[2Jx\ny";
    fs::write(directory.path().join("initrd"), [header("a", 0o100_644, 0), header(name, 0o100_644, 0)].concat())
        .unwrap();
    let printed = printed(directory.path(), "$firn ls initrd 2>&1; $firn inspect initrd 2>&1; $firn ls --json initrd");
    assert!(printed.contains("makes no no/\\u{1b}[2Jx\\ny"), "{printed}");
    assert!(!printed.contains('\x1b'), "{printed}");
}

#[test]
fn a_machine_ends_with_firn() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = r#"{"system": "x86_64-linux", "cmdline": "", "kernel_release": "6.9", "files": []}"#;
    fs::write(directory.path().join("manifest.json"), manifest).unwrap();
    // A QEMU that runs until it is asked to end.
    let said = printed(
        directory.path(),
        "mkdir bin; touch initrd
         printf '#!/bin/sh\ntrap \"touch ended; exit\" TERM\ntouch started\nwhile :; do sleep 0.1; done\n' > bin/qemu-system-x86_64
         chmod +x bin/qemu-system-x86_64
         PATH=$PWD/bin:$PATH $firn boot --kvm off . 2> errors & firn=$!
         until [[ -e started ]]; do sleep 0.1; done
         kill $firn; wait $firn || echo $?; cat errors; ls ended",
    );
    assert_eq!(said, "1\nfirn: waiting for qemu-system-x86_64: interrupted\nended\n");
}
