//! A unified kernel image: its sections, and the texts in them.

use crate::formats::kernel_image;
use crate::formats::pe::{self, Program, Section};
use crate::formats::uki::{self, CMDLINE, KERNEL, OS_RELEASE, PROFILE, RELEASE, piece};
use crate::formats::window::{Piece, Window};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{Read, Seek};

/// The most that is read of a text, bytes. Real ones have a few hundred.
const LONGEST_TEXT: u64 = 1 << 16;

/// A unified kernel image, as systemd-stub starts it without a choice of a profile.
#[derive(Debug, Clone, Serialize)]
pub struct Uki {
    /// The machine that it runs on.
    pub machine: String,
    /// Whether it has a signature. firn does not check it.
    pub is_signed: bool,
    /// All of its sections, in the order of the table.
    pub sections: Vec<UkiSection>,
    /// Its command line; an empty one if it has none.
    pub cmdline: String,
    /// The variables of os-release(5) in it.
    pub os_release: BTreeMap<String, String>,
    /// The release of its kernel, as its section `.uname` says.
    pub uname: Option<String>,
    /// The profiles among which a boot menu chooses; the first one is the default. None before systemd 257.
    pub profiles: Vec<UkiProfile>,
    /// The release that the kernel itself says, if it is one for x86.
    #[serde(skip)]
    pub kernel_release: Option<String>,
    /// The size of the kernel, bytes.
    #[serde(skip)]
    pub kernel_bytes: u64,
    /// The pieces of the file that the kernel gets as the ramdisk.
    #[serde(skip)]
    pub ramdisk: Vec<Piece>,
}

/// A section of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UkiSection {
    /// Its name.
    pub name: String,
    /// Its offset in the file, bytes.
    pub offset: u64,
    /// Its size in the file without padding, bytes.
    pub bytes: u64,
    /// Its size in memory, bytes.
    pub memory: u64,
    /// The number of its profile. None for those that all profiles share.
    pub profile: Option<usize>,
    /// False for one that the stub does not read, since another one comes before it or takes its place.
    pub is_read: bool,
}

/// A profile of a unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UkiProfile {
    /// The variables in its section `.profile`: `ID` and `TITLE`.
    pub variables: BTreeMap<String, String>,
    /// Its command line, which may be the one that the profiles share.
    pub cmdline: String,
}

impl Uki {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A program without a kernel, one that is cut off, a file that is no program, errors of reading.
    pub fn read(mut file: impl Read + Seek) -> Result<Self> {
        let length = file.seek(std::io::SeekFrom::End(0))?;
        let mut start = Vec::new();
        file.rewind()?;
        file.by_ref().take(pe::START).read_to_end(&mut start)?;
        let program = Program::parse(&start, length)
            .map_err(|error| anyhow!("{error}; copy it again, or give a unified kernel image or a ramdisk"))?;
        let found = uki::Uki::of(&program).context(
            "it is an EFI program without a kernel (section .linux); give a build, a ramdisk, a store image, a kernel or a \
             unified kernel image",
        )?;
        let kernel = found.find(KERNEL, 0).context(
            "its default profile has no kernel (section .linux), and does not boot; make it again with the kernel before all profiles",
        )?;
        let mut reader = SectionReader { file, length };
        let mut text = |name: &str, profile| {
            let section = found.find(name, profile);
            section.map(|section| reader.start(section, LONGEST_TEXT)).transpose()
        };
        let cmdline = uki::cmdline(&text(CMDLINE, 0)?.unwrap_or_default());
        let os_release = uki::os_release(&uki::text(&text(OS_RELEASE, 0)?.unwrap_or_default()));
        let uname = text(RELEASE, 0)?.map(|bytes| uki::text(&bytes).trim().to_owned());
        let mut profiles = Vec::new();
        for number in 0..found.profiles() {
            let cmdline = uki::cmdline(&text(CMDLINE, number)?.unwrap_or_default());
            let variables = uki::os_release(&uki::text(&text(PROFILE, number)?.unwrap_or_default()));
            profiles.push(UkiProfile { variables, cmdline });
        }
        let sections = found.sections().map(|(profile, section, is_read)| UkiSection {
            name: section.name(),
            offset: section.offset.into(),
            bytes: section.loaded().into(),
            memory: section.memory.into(),
            profile,
            is_read,
        });
        Ok(Self {
            machine: program.machine.to_string(),
            is_signed: program.is_signed,
            sections: sections.collect(),
            cmdline,
            os_release,
            uname,
            profiles,
            kernel_release: kernel_image::release(&reader.start(kernel, kernel_image::START)?),
            kernel_bytes: kernel.loaded().into(),
            ramdisk: found.ramdisk(length)?,
        })
    }

    /// The name of the system in it, with the version, if it says one.
    #[must_use]
    pub fn system(&self) -> Option<String> {
        let named = |name| self.os_release.get(name).filter(|value: &&String| !value.is_empty());
        let name = named("PRETTY_NAME").or_else(|| named("NAME"))?;
        let version = named("IMAGE_VERSION").or_else(|| named("VERSION")).or_else(|| named("VERSION_ID"));
        Some(match version {
            Some(version) if !name.contains(version.as_str()) => format!("{name}, version {version}"),
            _ => name.clone(),
        })
    }
}

/// A file of which sections are read.
struct SectionReader<R> {
    file: R,
    length: u64,
}

impl<R: Read + Seek> SectionReader<R> {
    /// The first bytes of a section, at most as many.
    fn start(&mut self, section: &Section, bytes: u64) -> Result<Vec<u8>> {
        let pieces = [piece(section, self.length)?];
        let mut start = Vec::new();
        Window::new(&mut self.file, &pieces).take(bytes).read_to_end(&mut start)?;
        Ok(start)
    }
}
