//! A unified kernel image: one program for UEFI with kernel, ramdisk and command line
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>).
//!
//! The program is the EFI stub of systemd; the kernel and the rest are further sections of it. No crate is used: the ramdisk is
//! streamed from file to file, and only four numbers in the headers of the stub change.

use crate::build::output::directory::{Entry, Output};
use crate::build::output::manifest::Manifest;
use crate::build::ways::build_directory::BuildDirectory;
use crate::formats::digest::copy;
use crate::host::progress::Progress;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The environment variable with the path of the stub.
const STUB: &str = "FIRN_STUB";

/// The alignment of sections: the stub passes the ramdisk on without copying it.
const PAGE: u64 = 4096;

/// Size of an entry of the section table (Microsoft's PE format, "Section Table").
const SECTION_HEADER: usize = 40;

/// Initialized data, readable (`IMAGE_SCN_CNT_INITIALIZED_DATA`, `IMAGE_SCN_MEM_READ`).
const CHARACTERISTICS: u64 = 0x4000_0040;

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
pub fn image(build: &BuildDirectory, out: &Path, options: &UkiOptions, progress: Progress) -> Result<Vec<Entry>> {
    let (mut output, name) = build.file_output(out, "nixos.efi")?;
    let stub = stub(options, &build.manifest.system)?;
    if let (true, Some(version)) = (options.without_image, version(&stub)) {
        ensure!(
            version >= COMBINES_RAMDISKS,
            "the stub is that of systemd {version}, which boots with one ramdisk only; give the stub of systemd \
             {COMBINES_RAMDISKS} or newer with --stub, or leave out --without-image"
        );
    }
    let kernel = build.kernel()?;
    let ramdisk = if options.without_image { build.ramdisk_without_images()? } else { build.ramdisk()? };
    let cmdline = format!("{} {}", build.manifest.cmdline, options.append);
    let (cmdline, os_release) = (cmdline.trim_end().as_bytes(), os_release(&build.manifest));
    let release = build.manifest.kernel_release.as_bytes();
    let sections: [(&str, u64, Box<dyn Read>); 5] = [
        (".osrel", os_release.len() as u64, Box::new(os_release.as_bytes())),
        (".uname", release.len() as u64, Box::new(release)),
        (".cmdline", cmdline.len() as u64, Box::new(cmdline)),
        (".linux", kernel.bytes, Box::new(kernel.open()?)),
        (".initrd", ramdisk.bytes, Box::new(ramdisk.open()?)),
    ];
    let step = progress.step("Packing the UEFI image", kernel.bytes + ramdisk.bytes);
    let (head, table) = with_sections(stub, &sections.each_ref().map(|(name, bytes, _)| (*name, *bytes)))?;
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

/// The text of the section `.osrel`, which boot menus show (os-release(5)).
fn os_release(manifest: &Manifest) -> String {
    let label: String = manifest.label.chars().filter(|c| !"\"\\$`\n".contains(*c)).collect();
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

/// The version of systemd in a stub, if the stub contains it.
fn version(stub: &[u8]) -> Option<u32> {
    const BEFORE: &[u8] = b"#### LoaderInfo: systemd-stub ";
    let place = stub.windows(BEFORE.len()).position(|bytes| bytes == BEFORE)? + BEFORE.len();
    let digits: Vec<_> = stub[place..].iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

/// Where the contents of a section belong in the file.
#[derive(Debug, PartialEq, Eq)]
struct Section {
    offset: u64,
    end: u64,
}

/// A program whose headers have these sections after its own, and where their contents belong.
fn with_sections(mut stub: Vec<u8>, sections: &[(&str, u64)]) -> Result<(Vec<u8>, Vec<Section>)> {
    let headers =
        Headers::parse(&stub).context("the stub is no program for UEFI; give linuxx64.efi.stub of systemd")?;
    let mut entry = headers.table + headers.sections * SECTION_HEADER;
    ensure!(
        entry + sections.len() * SECTION_HEADER <= headers.size && headers.size <= stub.len(),
        "the headers of the stub have no room for {} more sections; give linuxx64.efi.stub of systemd",
        sections.len()
    );
    let (mut address, mut offset) = (headers.image_size, stub.len() as u64);
    let mut table = Vec::new();
    for (name, size) in sections {
        address = address.next_multiple_of(PAGE.max(headers.alignment));
        offset = offset.next_multiple_of(headers.file_alignment);
        let file_size = size.next_multiple_of(headers.file_alignment);
        stub[entry..entry + SECTION_HEADER].fill(0);
        stub[entry..entry + name.len()].copy_from_slice(name.as_bytes());
        for (place, value) in [(8, *size), (12, address), (16, file_size), (20, offset), (36, CHARACTERISTICS)] {
            put(&mut stub, entry + place, value)?;
        }
        table.push(Section { offset, end: offset + file_size });
        address += size;
        offset += file_size;
        entry += SECTION_HEADER;
    }
    stub[headers.pe + 6..headers.pe + 8]
        .copy_from_slice(&u16::try_from(headers.sections + sections.len())?.to_le_bytes());
    put(&mut stub, headers.pe + 80, address.next_multiple_of(PAGE.max(headers.alignment)))?;
    // The checksum of what this was. UEFI asks for none.
    put(&mut stub, headers.pe + 88, 0)?;
    Ok((stub, table))
}

/// Writes a number of 32 bits, which all sizes in the headers are.
fn put(stub: &mut [u8], place: usize, value: u64) -> Result<()> {
    let value = u32::try_from(value).context(
        "the image would have more than the 4 GiB of a program for UEFI; leave the store out (--without-image)",
    )?;
    stub[place..place + 4].copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// What is in the headers of a program that matters here.
struct Headers {
    /// Where they begin, behind those for DOS.
    pe: usize,
    /// Where the section table begins.
    table: usize,
    sections: usize,
    /// The size of all headers.
    size: usize,
    /// The size of the program in memory.
    image_size: u64,
    /// Of sections in memory.
    alignment: u64,
    /// Of sections in the file.
    file_alignment: u64,
}

impl Headers {
    fn parse(program: &[u8]) -> Option<Self> {
        let half = |place: usize| Some(u16::from_le_bytes(program.get(place..place + 2)?.try_into().ok()?));
        let word = |place: usize| Some(u32::from_le_bytes(program.get(place..place + 4)?.try_into().ok()?));
        let pe = usize::try_from(word(0x3c)?).ok()?;
        // "PE32+": with addresses of 64 bits
        if program.get(..2)? != b"MZ" || program.get(pe..pe.checked_add(4)?)? != b"PE\0\0" || half(pe + 24)? != 0x20b {
            return None;
        }
        let alignments = [u64::from(word(pe + 56)?), u64::from(word(pe + 60)?)];
        if !alignments.iter().all(|alignment| alignment.is_power_of_two()) {
            return None;
        }
        Some(Self {
            pe,
            table: pe + 24 + usize::from(half(pe + 20)?),
            sections: half(pe + 6)?.into(),
            size: usize::try_from(word(pe + 84)?).ok()?,
            image_size: word(pe + 80)?.into(),
            alignment: alignments[0],
            file_alignment: alignments[1],
        })
    }
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

    /// The headers of a program with one section, and room for six.
    fn program() -> Vec<u8> {
        let mut program = vec![0; 0x400];
        program[..2].copy_from_slice(b"MZ");
        program[0x3c] = 0x40;
        program[0x40..0x44].copy_from_slice(b"PE\0\0");
        for (place, value) in [(6, 1_u16), (20, 112), (24, 0x20b), (4, 0x8664), (22, 0x206), (92, 10)] {
            program[0x40 + place..0x40 + place + 2].copy_from_slice(&value.to_le_bytes());
        }
        for (place, value) in [(56, 0x200), (60, 0x200), (80, 0x1300), (84, 0x400), (88, 7)] {
            put(&mut program, 0x40 + place, value).unwrap();
        }
        let section = 0x40 + 24 + 112;
        program[section..section + 5].copy_from_slice(b".text");
        for (place, value) in [(8, 0x100), (12, 0x1000), (16, 0x200), (20, 0x400)] {
            put(&mut program, section + place, value).unwrap();
        }
        program.extend([0x90; 0x200]);
        program
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
    fn what_takes_no_sections() {
        let section = |size| [(".initrd", size)];
        let mut other = program();
        other[0x40 + 24] = 0x0b; // PE32
        other[0x40 + 25] = 0x01;
        let mut full = program();
        full[0x46] = 20;
        for (stub, size, expected) in [
            (b"#!/bin/sh".to_vec(), 1, "no program for UEFI"),
            (other, 1, "no program for UEFI"),
            (full, 1, "no room for 1 more"),
            (program(), u64::from(u32::MAX), "--without-image"),
        ] {
            let error = format!("{:#}", with_sections(stub, &section(size)).unwrap_err());
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
