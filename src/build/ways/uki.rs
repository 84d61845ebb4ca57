//! A unified kernel image: one program for UEFI with kernel, ramdisk and command line
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>).
//!
//! The program is the EFI stub of systemd; the kernel and the rest are further sections of it. No crate is used: the ramdisk is
//! streamed from file to file, and only four numbers in the headers of the stub change.

use crate::build::output::directory::Output;
use crate::build::ways::build_directory::BuildDirectory;
use crate::build::ways::limits::Loader;
use crate::contract::manifest::{FileEntry, Manifest};
use crate::formats::digest::copy;
use crate::formats::pe::{self, SectionError};
use crate::host::progress::Progress;
use anyhow::{Context, Result, anyhow, ensure};
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The environment variable with the path of the stub.
const STUB: &str = "FIRN_STUB";

/// The first systemd whose stub combines its ramdisk with one of the boot loader. Older stubs fail with "Error registering initrd:
/// Already started".
const COMBINES_RAMDISKS: u32 = 261;

/// The options of a unified kernel image.
#[derive(Debug, Default)]
pub struct UkiOptions {
    /// The EFI stub of systemd; without it the one that `FIRN_STUB` names, or the installed one.
    pub stub: Option<PathBuf>,
    /// Kernel parameters after those of the system. With Secure Boot nobody can add any later.
    pub append: String,
    /// Whether the store image is left out, for a boot loader that adds it as a second ramdisk.
    pub without_image: bool,
}

/// Makes a unified kernel image: the file `out`, or `nixos.efi` in the directory `out`.
///
/// # Errors
///
/// No stub, or one without room for more sections; a damaged build; an image that is too large for UEFI; and those of writing.
pub fn image(build: &BuildDirectory, out: &Path, options: &UkiOptions, progress: Progress) -> Result<Vec<FileEntry>> {
    let cmdline = build.cmdline(&options.append, Loader::None)?.to_string();
    let (mut output, name) = build.file_output(out, "nixos.efi")?;
    let stub = stub(options, &build.manifest.system)?;
    if let (true, Some(version)) = (options.without_image, pe::systemd_stub_version(&stub)) {
        ensure!(
            version >= COMBINES_RAMDISKS,
            "the stub is that of systemd {version}, which boots with one ramdisk only; give the stub of systemd \
             {COMBINES_RAMDISKS} or newer with --stub, or leave out --without-image"
        );
    }
    let kernel = build.kernel()?;
    let ramdisk = if options.without_image { build.ramdisk_without_images()? } else { build.ramdisk()? };
    let (cmdline, os_release) = (cmdline.as_bytes(), os_release(&build.manifest));
    let release = build.manifest.kernel_release.as_bytes();
    let sections: [(&str, u64, Box<dyn Read>); 5] = [
        (".osrel", os_release.len() as u64, Box::new(os_release.as_bytes())),
        (".uname", release.len() as u64, Box::new(release)),
        (".cmdline", cmdline.len() as u64, Box::new(cmdline)),
        (".linux", kernel.bytes, Box::new(kernel.open()?)),
        (".initrd", ramdisk.bytes, Box::new(ramdisk.open()?)),
    ];
    let step = progress.step("Packing the UEFI image", kernel.bytes + ramdisk.bytes);
    let (head, table) = add_sections(stub, &sections.each_ref().map(|(name, bytes, _)| (*name, *bytes)))?;
    output.write_with(&name, ramdisk.private, |out| {
        out.write_all(&head)?;
        for (section, (.., contents)) in table.iter().zip(sections) {
            pad(out, section.offset)?;
            copy(step.reading(contents), out)?;
        }
        pad(out, table.last().map_or(0, |section| section.end))
    })?;
    step.done();
    output.publish()
}

/// The text of the section `.osrel`, which boot menus show (os-release(5)).
fn os_release(manifest: &Manifest) -> String {
    let label: String = manifest.label.chars().filter(|c| !"\"\\$`".contains(*c) && !c.is_control()).collect();
    format!("ID=nixos\nNAME=NixOS\nPRETTY_NAME=\"{label}\"\n")
}

fn stub(options: &UkiOptions, system: &str) -> Result<Vec<u8>> {
    let machine = if system.starts_with("aarch64") { "aa64" } else { "x64" };
    let installed = || format!("/usr/lib/systemd/boot/efi/linux{machine}.efi.stub").into();
    let path = options.stub.clone().or_else(|| env::var_os(STUB).map(PathBuf::from)).unwrap_or_else(installed);
    fs::read(&path).with_context(|| {
        format!(
            "reading the EFI stub of systemd {}; install systemd-boot-efi (Debian), or give the path of another \
             linux{machine}.efi.stub with --stub or {STUB}",
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
    use crate::build::ways::build_directory::tests::sample;
    use crate::formats::pe::tests::program;

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
            String::from_utf8(fs::read(out).unwrap()).unwrap().trim_end_matches('\0').to_owned()
        };
        let options = UkiOptions { stub: Some(stub), append: "x=1".into(), without_image: true };
        let files = image(&build, directory.path(), &options, Progress::Quiet).unwrap();
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
        let options = UkiOptions { without_image: false, ..options };
        image(&build, &whole, &options, Progress::Quiet).unwrap();
        assert!(section(&whole, ".initrd").contains("an image"));
    }

    #[test]
    fn a_stub_for_one_ramdisk() {
        let directory = tempfile::tempdir().unwrap();
        let build = sample(directory.path(), "", "", "firn-init");
        let stub = directory.path().join("stub");
        let made = |magic: &str, without_image| {
            fs::write(&stub, [&program(), magic.as_bytes()].concat()).unwrap();
            let options = UkiOptions { stub: Some(stub.clone()), without_image, ..UkiOptions::default() };
            image(&build, directory.path(), &options, Progress::Quiet).map_err(|error| error.to_string())
        };
        let old = "#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####";
        let error = made(old, true).unwrap_err();
        assert!(
            error.contains("is that of systemd 257") && error.contains("systemd 261 or newer with --stub"),
            "{error}"
        );
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
        let options = UkiOptions { stub: Some("/nonexistent/stub".into()), ..UkiOptions::default() };
        let error = format!("{:#}", stub(&options, "x86_64-linux").unwrap_err());
        assert!(error.contains("install systemd-boot-efi") && error.contains("--stub or FIRN_STUB"), "{error}");
    }
}
