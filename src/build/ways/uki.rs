//! A unified kernel image: one program for UEFI that is kernel, ramdisk and command line
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>).
//!
//! systemd's stub is the program; what it starts are further sections of it. Written here and not by a crate: the ramdisk is
//! streamed from file to file, and all that changes in the stub's headers are four numbers.

use crate::build::output::directory::Output;
use crate::build::ways::built::Built;
use crate::contract::manifest::{FileEntry, Manifest};
use crate::formats::digest::copy;
use crate::formats::pe::{self, SectionError};
use crate::host::progress::Progress;
use anyhow::{Context, Result, anyhow, ensure};
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Names the stub where none is given.
const STUB: &str = "FIRN_STUB";

/// The first systemd whose stub adds its ramdisk to one that the boot loader brought. Those before do not start the kernel then:
/// "Error registering initrd: Already started".
const ADDS_ITS_RAMDISK: u32 = 261;

/// What goes into the image, apart from the build.
#[derive(Debug, Default)]
pub struct Options {
    /// systemd's stub; without it the one that `FIRN_STUB` names, or that is installed.
    pub stub: Option<PathBuf>,
    /// Words for the kernel after those of the system: nobody can add any later where Secure Boot is on.
    pub append: String,
    /// Whether the store image is left out, for a boot loader that brings it as a second ramdisk.
    pub without_image: bool,
}

/// Makes a unified kernel image. `out` is its name, or a directory for `nixos.efi`.
///
/// # Errors
///
/// No stub or none that takes more sections, a build that is not whole, more than UEFI can load, and those of writing.
pub fn image(built: &Built, out: &Path, options: &Options, progress: Progress) -> Result<Vec<FileEntry>> {
    let (mut output, name) = built.file_output(out, "nixos.efi")?;
    let stub = stub(options, &built.manifest.system)?;
    if let (true, Some(version)) = (options.without_image, pe::systemd_stub_version(&stub)) {
        ensure!(
            version >= ADDS_ITS_RAMDISK,
            "the stub is of systemd {version}, which boots with one ramdisk only; give that of systemd {ADDS_ITS_RAMDISK} or \
             newer with --stub, or leave the store image in"
        );
    }
    let kernel = built.kernel()?;
    let ramdisk = if options.without_image { built.ramdisk_without_images()? } else { built.ramdisk()? };
    let cmdline = format!("{} {}", built.manifest.cmdline, options.append);
    let (cmdline, os_release) = (cmdline.trim_end().as_bytes(), os_release(&built.manifest));
    let release = built.manifest.kernel_release.as_bytes();
    let sections: [(&str, u64, Box<dyn Read>); 5] = [
        (".osrel", os_release.len() as u64, Box::new(os_release.as_bytes())),
        (".uname", release.len() as u64, Box::new(release)),
        (".cmdline", cmdline.len() as u64, Box::new(cmdline)),
        (".linux", kernel.bytes, Box::new(kernel.open()?)),
        (".initrd", ramdisk.bytes, Box::new(ramdisk.open()?)),
    ];
    let step = progress.step("Packing the UEFI image", kernel.bytes + ramdisk.bytes);
    let (head, table) = add_sections(stub, &sections.each_ref().map(|(name, bytes, _)| (*name, *bytes)))?;
    output.write(&name, |out| {
        out.write_all(&head)?;
        for (section, (name, bytes, contents)) in table.iter().zip(sections) {
            pad(out, section.offset)?;
            let copied = copy(step.reading(contents), out)?;
            ensure!(copied == bytes, "the section {name} ended after {copied} of {bytes} bytes; build it again");
        }
        pad(out, table.last().map_or(0, |section| section.end))
    })?;
    step.done();
    output.publish()
}

/// What boot menus show (os-release(5)).
fn os_release(manifest: &Manifest) -> String {
    let label: String = manifest.label.chars().filter(|c| !"\"\\$`\n".contains(*c)).collect();
    format!("ID=nixos\nNAME=NixOS\nPRETTY_NAME=\"{label}\"\n")
}

fn stub(options: &Options, system: &str) -> Result<Vec<u8>> {
    let machine = if system.starts_with("aarch64") { "aa64" } else { "x64" };
    let installed = || format!("/usr/lib/systemd/boot/efi/linux{machine}.efi.stub").into();
    let path = options.stub.clone().or_else(|| env::var_os(STUB).map(PathBuf::from)).unwrap_or_else(installed);
    fs::read(&path).with_context(|| {
        format!(
            "reading systemd's stub {}; install systemd-boot-efi (Debian), or name linux{machine}.efi.stub of another systemd \
             with --stub or {STUB}",
            path.display()
        )
    })
}

/// Adds sections to the stub; see [`pe::with_sections`].
fn add_sections(stub: Vec<u8>, sections: &[(&str, u64)]) -> Result<(Vec<u8>, Vec<pe::Section>)> {
    pe::with_sections(stub, sections).map_err(|error| match error {
        SectionError::NoProgram => anyhow!("the stub is no program for UEFI; give linuxx64.efi.stub of systemd"),
        SectionError::NoRoom(count) => {
            anyhow!("the headers of the stub have no room for {count} more sections; give linuxx64.efi.stub of systemd")
        }
        SectionError::TooLarge => anyhow!(
            "the image would have more than the 4 GiB of a program for UEFI; leave the store out (--without-image)"
        ),
    })
}

/// Fills a file with zeros up to a place.
fn pad(out: &mut Output, place: u64) -> Result<()> {
    let missing = place.checked_sub(out.bytes()).context("a section is longer than it was")?;
    io::copy(&mut io::repeat(0).take(missing), out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::ways::built::tests::sample;
    use crate::formats::pe::tests::program;

    #[test]
    fn a_foreign_reader_finds_the_sections() {
        let directory = tempfile::tempdir().unwrap();
        let built = sample(directory.path(), "NixOS \"x\"", "init=/x quiet", "firn-init");
        let stub = directory.path().join("stub");
        fs::write(&stub, program()).unwrap();
        let section = |file: &Path, name: &str| {
            let out = directory.path().join("section");
            let copy = ["--only-section", name, "--output-target", "binary"];
            let output = std::process::Command::new("objcopy").args(copy).arg(file).arg(&out).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(fs::read(out).unwrap()).unwrap().trim_end_matches('\0').to_owned()
        };
        let options = Options { stub: Some(stub), append: "x=1".into(), without_image: true };
        let files = image(&built, directory.path(), &options, Progress::Quiet).unwrap();
        let file = directory.path().join(&files[0].name);
        assert_eq!(files[0].name, "nixos.efi");
        for (name, expected) in [
            (".osrel", "ID=nixos\nNAME=NixOS\nPRETTY_NAME=\"NixOS x\"\n"),
            (".uname", "6.9"),
            (".cmdline", "init=/x quiet x=1"),
            (".linux", "kernel"),
            (".initrd", "firn-init"),
        ] {
            assert_eq!(section(&file, name), expected, "{name}");
        }
        let whole = directory.path().join("whole.efi");
        let options = Options { without_image: false, ..options };
        image(&built, &whole, &options, Progress::Quiet).unwrap();
        assert!(section(&whole, ".initrd").contains("an image"));
    }

    #[test]
    fn a_stub_for_one_ramdisk() {
        let directory = tempfile::tempdir().unwrap();
        let built = sample(directory.path(), "", "", "firn-init");
        let stub = directory.path().join("stub");
        let made = |magic: &str, without_image| {
            fs::write(&stub, [&program(), magic.as_bytes()].concat()).unwrap();
            let options = Options { stub: Some(stub.clone()), without_image, ..Options::default() };
            image(&built, directory.path(), &options, Progress::Quiet).map_err(|error| error.to_string())
        };
        let old = "#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####";
        let error = made(old, true).unwrap_err();
        assert!(error.contains("is of systemd 257") && error.contains("systemd 261 or newer with --stub"), "{error}");
        made(old, false).unwrap();
        for magic in ["#### LoaderInfo: systemd-stub 262.1-1 ####", "#### LoaderInfo: systemd-stub main ####", ""] {
            made(magic, true).unwrap();
        }
    }

    #[test]
    fn stubs_without_room_for_sections() {
        for (stub, size, expected) in [
            (b"#!/bin/sh".to_vec(), 1, "no program for UEFI; give linuxx64.efi.stub of systemd"),
            (program(), u64::from(u32::MAX), "leave the store out (--without-image)"),
        ] {
            let error = format!("{:#}", add_sections(stub, &[(".initrd", size)]).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn without_a_stub() {
        let options = Options { stub: Some("/nonexistent/stub".into()), ..Options::default() };
        let error = format!("{:#}", stub(&options, "x86_64-linux").unwrap_err());
        assert!(error.contains("install systemd-boot-efi") && error.contains("--stub or FIRN_STUB"), "{error}");
    }
}
