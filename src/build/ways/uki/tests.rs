use super::*;
use crate::build::ways::build_directory::tests::{sample, sample_with_kernel};
use crate::formats::pe::tests::{edit, kernel, stub as program, uki};
use object::read::pe::PeFile64;
use object::{LittleEndian as LE, Object, ObjectSection, U16, U32, pe as numbers};
use std::fs;

/// Makes an image from a stub with these bytes, or without a stub, and a kernel. The error is a sentence.
fn made(stub: Option<&[u8]>, kernel: &[u8], without_image: bool) -> Result<Vec<u8>, String> {
    let directory = tempfile::tempdir().unwrap();
    let build = sample_with_kernel(directory.path(), "", "quiet", "firn-init", kernel);
    let path = directory.path().join("stub");
    if let Some(stub) = stub {
        fs::write(&path, stub).unwrap();
    }
    let options = UkiOptions { stub: Some(path), without_image, ..UkiOptions::default() };
    let out = directory.path().join("out.efi");
    image(&build, &out, &options, Progress::Quiet).map_err(|error| format!("{error:#}"))?;
    Ok(fs::read(out).unwrap())
}

#[test]
fn a_foreign_reader_finds_the_sections() {
    let directory = tempfile::tempdir().unwrap();
    let build = sample(directory.path(), "NixOS \"x\"", "init=/x quiet", "firn-init");
    let stub = directory.path().join("stub");
    fs::write(&stub, program()).unwrap();
    let section = |file: &Path, name: &str| {
        let out = directory.path().join("section");
        let copy = ["--only-section", name, "--output-target", "binary"];
        let output = std::process::Command::new("objcopy").args(copy).arg(file).arg(&out).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&fs::read(out).unwrap()).trim_matches('\0').to_owned()
    };
    let options = UkiOptions { stub: Some(stub), append: "x=1".into(), without_image: true };
    let files = image(&build, directory.path(), &options, Progress::Quiet).unwrap();
    let file = directory.path().join(&files[0].name);
    assert_eq!(files[0].name, "nixos.efi");
    for (name, expected) in [
        (".osrel", "ID=nixos\nNAME=NixOS\nPRETTY_NAME=\"NixOS x\"\n"),
        (".uname", "6.9"),
        (".cmdline", "init=/x quiet x=1"),
        (".initrd", "firn-init"),
    ] {
        assert_eq!(section(&file, name), expected, "{name}");
    }
    assert!(section(&file, ".linux").ends_with("kernel"));
    let whole = directory.path().join("whole.efi");
    let options = UkiOptions { without_image: false, ..options };
    image(&build, &whole, &options, Progress::Quiet).unwrap();
    assert!(section(&whole, ".initrd").contains("an image"));
}

#[test]
fn c_11_the_kernel_is_last_and_has_the_memory_that_it_asks_for() {
    for (memory, expected) in [(0x12_3000, 0x12_3000), (0x200, 0x300)] {
        let contents = kernel(0x8664, memory);
        let file = made(Some(&program()), &contents, false).unwrap();
        let read = PeFile64::parse(&*file).unwrap();
        let sections: Vec<_> = read.sections().collect();
        let names: Vec<_> = sections.iter().map(|section| section.name().unwrap()).collect();
        assert_eq!(names, [".text", ".sbat", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"]);
        let linux = sections.last().unwrap();
        assert_eq!((linux.size(), linux.data().unwrap().get(..contents.len())), (expected, Some(&*contents)));
        for (one, next) in sections.iter().zip(&sections[1..]) {
            assert!(one.address() + one.size() <= next.address(), "{one:?} {next:?}");
        }
        let end = linux.address() + linux.size();
        assert_eq!(u64::from(read.nt_headers().optional_header.size_of_image.get(LE)), end.next_multiple_of(4096));
    }
}

#[test]
fn a_stub_for_one_ramdisk() {
    let made = |magic: &str, without_image| {
        made(Some(&[&program(), magic.as_bytes()].concat()), &kernel(0x8664, 0x2000), without_image)
    };
    let old = "#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####";
    let error = made(old, true).unwrap_err();
    assert!(error.contains("is that of systemd 257") && error.contains("systemd 261 or newer with --stub"), "{error}");
    made(old, false).unwrap();
    for magic in ["#### LoaderInfo: systemd-stub 262.1-1 ####", "#### LoaderInfo: systemd-stub main ####", ""] {
        made(magic, true).unwrap();
    }
}

#[test]
fn c_11_stubs_that_start_no_kernel_are_refused() {
    let with = |change: fn(&mut numbers::ImageNtHeaders64)| {
        let mut program = program();
        edit(&mut program, change);
        program
    };
    let addon = [&program(), &b"#### LoaderInfo: systemd-addon 257 ####"[..]].concat();
    let mut large = program();
    large.resize(65 << 20, 0);
    let refusals: [(&[u8], &str); 8] = [
        (
            b"#!/bin/sh",
            "/stub is no EFI stub that firn can use; give linuxx64.efi.stub of systemd: it is no program for UEFI",
        ),
        (b"", "no EFI stub that firn can use"),
        (&program()[..0x700], "it is cut off: its section .sbat ends at byte 2048, and the file has 1792 bytes"),
        (
            &with(|nt| nt.file_header.machine = U16::new(LE, numbers::IMAGE_FILE_MACHINE_ARM64)),
            "/stub is for AArch64, and the kernel is for x86-64; give linuxx64.efi.stub of systemd",
        ),
        (
            &with(|nt| nt.file_header.machine = U16::new(LE, numbers::IMAGE_FILE_MACHINE_I386)),
            "/stub is for x86 with 32 bits, and the kernel is for x86-64",
        ),
        (&uki(&[(".linux", b"x")]), "/stub has a section .linux already"),
        (&addon, "/stub is systemd-addon, which starts no kernel in its own file; give linuxx64.efi.stub of systemd"),
        (&large, "/stub has 68157440 bytes, which no EFI stub has"),
    ];
    for (stub, expected) in refusals {
        let error = made(Some(stub), &kernel(0x8664, 0x2000), false).unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    let error = made(None, &kernel(0x8664, 0x2000), false).unwrap_err();
    assert!(error.contains("install systemd-boot-efi") && error.contains("--stub or FIRN_STUB"), "{error}");
}

#[test]
fn c_11_kernels_that_uefi_cannot_start_are_refused() {
    let mut cut = kernel(0x8664, 0x2000);
    cut.truncate(0x280);
    let mut zboot = kernel(0xaa64, 0x2000);
    zboot[4..8].copy_from_slice(b"zimg");
    let refusals: [(&[u8], &str); 7] = [
        (b"kernel", "it is no program for UEFI"),
        (b"\x1f\x8b\x08\0 and so on", "CONFIG_EFI_STUB and is not compressed in whole: it is compressed (gzip)"),
        (b"\x7fELF", "it is a program"),
        (&cut, "it is cut off: its section .text ends at byte 768, and the file has 640 bytes"),
        (&kernel(0x14c, 0x2000), "is for x86-64, and the kernel is for x86 with 32 bits; give linuxia32.efi.stub"),
        (&zboot, "is for x86-64, and the kernel is for AArch64; give linuxaa64.efi.stub of systemd"),
        (&kernel(0x8664, u32::MAX), "bzImage is damaged: its headers ask for 4294967295 bytes of memory"),
    ];
    for (kernel, expected) in refusals {
        let error = made(Some(&program()), kernel, false).unwrap_err();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    // A compressed kernel that unpacks itself is a program like any other.
    let mut stub = program();
    edit(&mut stub, |nt| {
        nt.file_header.machine = U16::new(LE, numbers::IMAGE_FILE_MACHINE_ARM64);
        nt.optional_header.section_alignment = U32::new(LE, 0x1000);
    });
    made(Some(&stub), &zboot, false).unwrap();
}

#[test]
fn c_11_an_image_of_more_than_4_gib_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    sample(directory.path(), "", "quiet", "firn-init");
    let path = |name: &str| directory.path().join(name);
    let bytes = fs::metadata(path("initrd")).unwrap().len();
    let manifest = fs::read_to_string(path("manifest.json")).unwrap();
    // Nothing of it is read.
    let large = manifest.replace(&format!("\"bytes\":{bytes}"), "\"bytes\":4294967000");
    assert_ne!(manifest, large);
    fs::write(path("manifest.json"), large).unwrap();
    fs::OpenOptions::new().write(true).open(path("initrd")).unwrap().set_len(4_294_967_000).unwrap();
    fs::write(path("stub"), program()).unwrap();
    let build = BuildDirectory::open(directory.path()).unwrap();
    let options = UkiOptions { stub: Some(path("stub")), ..UkiOptions::default() };
    let error = image(&build, &path("out.efi"), &options, Progress::Quiet).unwrap_err().to_string();
    assert_eq!(
        error,
        "the image would have more than the 4 GiB of a program for UEFI; leave the store out (--without-image)"
    );
    assert!(!path("out.efi").exists());
}
