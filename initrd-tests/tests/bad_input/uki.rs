//! Stubs and kernels of which no unified kernel image can be made, and wrong unified kernel images.

use crate::fake::Fake;
use crate::shell::{bash, succeeds};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A build of a small system in the directory `build`, and an image of it in `own.efi`.
fn built() -> TempDir {
    let work = tempfile::tempdir().unwrap();
    let system = Fake::new().in_store();
    let script = "
        firn build $system --out build --quiet --firn-init $FIRN_INIT
        firn uki build --out own.efi --quiet";
    succeeds(bash(work.path(), &system, script));
    work
}

/// Runs a command that fails within ten seconds with one line that has each of the words once.
fn refused(work: &Path, command: &str, words: &[&str]) {
    let output = bash(work, Path::new(""), &format!("firn() {{ timeout 10 $program \"$@\"; }}; {command}")).output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty() && said.starts_with("firn: ") && said.lines().count() == 1, "{command}: {said}");
    assert!(words.iter().all(|word| said.matches(word).count() == 1), "{command}, {words:?}: {said}");
    assert!(!said.trim_end().contains(|letter: char| letter.is_control()), "{command}: {said:?}");
    assert_eq!(output.status.code(), Some(1), "{command}");
}

/// A number in a program, bytes from the begin of its headers ("PE Format", Microsoft).
fn set(mut program: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    let begin = headers(&program) + at;
    program[begin..begin + bytes.len()].copy_from_slice(bytes);
    program
}

fn headers(program: &[u8]) -> usize {
    u32::from_le_bytes(*program[0x3c..].first_chunk().unwrap()).try_into().unwrap()
}

/// A program in which one text is another one of the same length.
fn with(mut program: Vec<u8>, text: &[u8], other: &[u8]) -> Vec<u8> {
    let at = program.windows(text.len()).position(|bytes| bytes == text).unwrap();
    program[at..at + other.len()].copy_from_slice(other);
    program
}

#[test]
fn c_11_each_wrong_stub_gets_one_sentence() {
    let work = built();
    let path = std::env::var_os("FIRN_STUB").unwrap_or_else(|| "/usr/lib/systemd/boot/efi/linuxx64.efi.stub".into());
    let stub = fs::read(path).unwrap();
    let own = fs::read(work.path().join("own.efi")).unwrap();
    let sections = 24 + usize::from(u16::from_le_bytes(*stub[headers(&stub) + 20..].first_chunk().unwrap()));
    // The address of the first section, which the second one gets, too.
    let first = stub[headers(&stub) + sections + 12..][..4].to_vec();
    let no_program = "it is no program for UEFI";
    let right = "give linuxx64.efi.stub";
    let of_files: [(&str, Vec<u8>, &str); 11] = [
        ("empty", Vec::new(), no_program),
        ("a text", b"#!/bin/sh\n".to_vec(), no_program),
        ("four bytes", b"MZ\0\0".to_vec(), no_program),
        ("cut off", stub[..stub.len() / 2].to_vec(), "it is cut off"),
        ("for ia32", set(stub.clone(), 4, &0x14c_u16.to_le_bytes()), "is for x86 with 32 bits, and the kernel is for"),
        ("for arm", set(stub.clone(), 4, &0x1c2_u16.to_le_bytes()), "is for Arm with 32 bits, and the kernel is for"),
        ("signed", set(stub.clone(), 24 + 112 + 4 * 8, &[0, 4, 0, 0, 8, 0, 0, 0]), "is signed"),
        ("overlapping", set(stub.clone(), sections + 40 + 12, &first), "overlap in memory"),
        ("an image", own, "has a section .osrel already"),
        ("an addon", with(stub.clone(), b"systemd-stub 2", b"systemd-addon "), "is systemd-addon,"),
        ("a boot loader", with(stub, b"systemd-stub", b"systemd-boot"), "is systemd-boot,"),
    ];
    for (name, contents, expected) in of_files {
        fs::write(work.path().join("stub"), contents).unwrap();
        refused(work.path(), "firn uki build --stub stub --out out.efi --quiet", &[expected, right]);
        assert!(!work.path().join("out.efi").exists(), "{name}");
    }
    for (make, expected, next) in [
        ("mkdir dir; FIRN_STUB=dir", "dir is a directory", "give the path of linuxx64.efi.stub"),
        ("mkfifo pipe; FIRN_STUB=pipe", "pipe is no regular file", "copy its contents into a file"),
        ("FIRN_STUB=/dev/zero", "/dev/zero is no regular file", "copy its contents into a file"),
        ("FIRN_STUB=nowhere", "opening nowhere", "install systemd-boot-efi"),
    ] {
        refused(work.path(), &format!("{make} firn uki build --out out.efi --quiet"), &[expected, next]);
        assert!(!work.path().join("out.efi").exists(), "{make}");
    }
}

#[test]
fn c_11_each_kernel_that_uefi_cannot_start_gets_one_sentence() {
    let kernel = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/pe/kernel")).unwrap();
    let size_of_image = 24 + 56;
    for (contents, expected, next) in [
        (b"no real kernel".to_vec(), "it is no program for UEFI", "CONFIG_EFI_STUB"),
        (kernel[..700].to_vec(), "it is cut off", "CONFIG_EFI_STUB"),
        (set(kernel, size_of_image, &[0xff; 4]), "ask for 4294967295 bytes of memory", "build the system again"),
    ] {
        let (work, fake) = (tempfile::tempdir().unwrap(), Fake::new());
        fs::write(fake.path("bzImage"), contents).unwrap();
        let script = "firn build $system --out build --quiet --firn-init $FIRN_INIT";
        succeeds(bash(work.path(), &fake.in_store(), script));
        refused(work.path(), "firn uki build --out out.efi --quiet", &[expected, next]);
        assert!(!work.path().join("out.efi").exists(), "{expected}");
    }
}

#[test]
fn c_7_each_wrong_uki_gets_one_sentence() {
    let work = built();
    let make = "
        head --bytes 4 own.efi > four && head --bytes 1000 own.efi > start && head --bytes -1000 own.efi > cut
        objcopy --remove-section .initrd own.efi without && objcopy --remove-section .linux own.efi no-kernel";
    succeeds(bash(work.path(), Path::new(""), make));
    for (file, expected, next) in [
        ("four", "four: it is no program for UEFI", "copy it again"),
        ("start", "start: it is cut off", "make or copy it again"),
        ("cut", "cut: it is cut off", "make or copy it again"),
        ("no-kernel", "no-kernel: it is an EFI program without a kernel (section .linux)", "give a build, a ramdisk"),
    ] {
        for command in
            ["inspect FILE", "ls FILE", "cat FILE init", "unpack FILE out", "diff FILE own.efi", "diff own.efi FILE"]
        {
            refused(work.path(), &format!("firn {}", command.replace("FILE", file)), &[expected, next]);
        }
    }
    for (command, next) in [
        ("firn ls without", "`firn inspect` shows"),
        ("firn cat without init", "`firn inspect` shows"),
        ("firn unpack without out", "`firn inspect` shows"),
        ("firn diff without own.efi", "compare two that have one"),
    ] {
        refused(work.path(), command, &["is a unified kernel image without a ramdisk (section .initrd)", next]);
    }
    refused(work.path(), "firn verify own.efi", &["own.efi is a file", "by sha256sum"]);
    assert!(!work.path().join("out").exists());
}
