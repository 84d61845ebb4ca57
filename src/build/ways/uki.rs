//! A unified kernel image: one program for UEFI that is kernel, ramdisk and command line
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>).
//!
//! systemd's stub is the program; what it starts are further sections of it. Written here and not by a crate: the ramdisk is
//! streamed from file to file, and all that changes in the stub's headers are four numbers.

use crate::build::output::directory::{Entry, Output};
use crate::build::output::manifest::Manifest;
use crate::build::ways::built::Built;
use crate::formats::digest::copy;
use crate::host::progress::Progress;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Names the stub where none is given.
const STUB: &str = "FIRN_STUB";

/// Sections begin on pages: the stub hands out the ramdisk from where it lies.
const PAGE: u64 = 4096;

/// Size of an entry of the section table (Microsoft's PE format, "Section Table").
const SECTION_HEADER: usize = 40;

/// Readable data that is there from the start.
const CHARACTERISTICS: u64 = 0x4000_0040;

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
pub fn image(built: &Built, out: &Path, options: &Options, progress: Progress) -> Result<Vec<Entry>> {
    let (mut output, name) = built.file_output(out, "nixos.efi")?;
    let stub = stub(options, &built.manifest.system)?;
    if let (true, Some(version)) = (options.without_image, version(&stub)) {
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

/// The systemd that a stub is of, if it says so.
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
    use crate::build::ways::built::tests::sample;

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
        let options = Options { stub: Some("/nonexistent/stub".into()), ..Options::default() };
        let error = format!("{:#}", stub(&options, "x86_64-linux").unwrap_err());
        assert!(error.contains("install systemd-boot-efi") && error.contains("--stub or FIRN_STUB"), "{error}");
    }
}
