//! Unified kernel images: programs for UEFI whose sections are a kernel and all that it needs, as systemd-stub reads them
//! (`src/boot/stub.c` and `src/boot/pe.c` of systemd 257;
//! <https://uapi-group.org/specifications/specs/unified_kernel_image/>).

use crate::formats::newc::padding;
use crate::formats::pe::{Program, Section};
use crate::formats::window::Piece;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// The section with the kernel.
pub const KERNEL: &str = ".linux";

/// The section with the ramdisk.
pub const RAMDISK: &str = ".initrd";

/// The section with microcode, which the stub puts before the ramdisk.
pub const MICROCODE: &str = ".ucode";

/// The section with the command line.
pub const CMDLINE: &str = ".cmdline";

/// The section with the text of os-release(5).
pub const OS_RELEASE: &str = ".osrel";

/// The section with the kernel's release.
pub const RELEASE: &str = ".uname";

/// The section that begins a profile, with a text like that of os-release(5).
pub const PROFILE: &str = ".profile";

/// The sections of which the stub chooses one by the machine's hardware. Of all others in a profile it takes the first of a name.
const CHOSEN: [&str; 2] = [".dtbauto", ".efifw"];

/// The most zeros that a ramdisk has behind its part in the file, bytes. Real ones have none, and reading them takes time.
const MOST_ZEROS: u64 = 64 << 20;

/// The start of the text by which programs of systemd say who they are, in their section `.sdmagic`.
const MAGIC: &[u8] = b"#### LoaderInfo: systemd-";

/// The sections of a unified kernel image.
#[derive(Debug, Clone)]
pub struct Uki {
    /// The sections that all profiles share.
    base: Vec<Section>,
    /// Those of each profile, the section [`PROFILE`] first. They take the place of the shared ones. The first profile is the default.
    profiles: Vec<Vec<Section>>,
}

/// The kind of a program of systemd, and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdProgram {
    /// `stub`, `boot` or `addon`.
    pub kind: String,
    /// The number of its version, if it has one.
    pub version: Option<u32>,
}

impl Uki {
    /// The sections of a program. None for a program without a kernel.
    #[must_use]
    pub fn of(program: &Program) -> Option<Self> {
        program.sections.iter().find(|section| section.is(KERNEL))?;
        let is_base = |section: &&Section| !section.is(PROFILE);
        let base: Vec<_> = program.sections.iter().take_while(is_base).copied().collect();
        let mut profiles: Vec<Vec<_>> = Vec::new();
        for section in program.sections.iter().skip(base.len()) {
            match profiles.last_mut() {
                Some(profile) if !section.is(PROFILE) => profile.push(*section),
                _ => profiles.push(vec![*section]),
            }
        }
        Some(Self { base, profiles })
    }

    /// All sections in the order of the table, each with the number of its profile and whether the stub reads it when it starts the
    /// profile, or the default one for a shared section.
    pub fn sections(&self) -> impl Iterator<Item = (Option<usize>, &Section, bool)> {
        let shared = self.base.iter().map(|section| (None, section));
        let profiles = self.profiles.iter().enumerate();
        let own = profiles.flat_map(|(number, profile)| profile.iter().map(move |section| (Some(number), section)));
        shared.chain(own).map(|(profile, section)| {
            let name = section.name();
            let is_first =
                self.find(&name, profile.unwrap_or_default()).is_some_and(|found| std::ptr::eq(found, section));
            (profile, section, is_first || CHOSEN.contains(&name.as_str()))
        })
    }

    /// The number of profiles. Without any there is the default one.
    #[must_use]
    pub fn profiles(&self) -> usize {
        self.profiles.len()
    }

    /// The section of this name that the stub reads when it starts a profile. It takes one of no bytes for none.
    #[must_use]
    pub fn find(&self, name: &str, profile: usize) -> Option<&Section> {
        let first = |sections: &'_ [Section]| sections.iter().position(|section| section.is(name));
        let own = self.profiles.get(profile).and_then(|own| own.get(first(own)?));
        own.or_else(|| self.base.get(first(&self.base)?)).filter(|section| section.memory > 0)
    }

    /// The ramdisk of the default profile, as the kernel gets it: each part on a multiple of four bytes. `length`: the size of the file,
    /// bytes. No pieces if there is no ramdisk.
    ///
    /// # Errors
    ///
    /// A file that ends within a part, and a part that is mostly not in the file.
    pub fn ramdisk(&self, length: u64) -> Result<Vec<Piece>> {
        let parts = [MICROCODE, RAMDISK].into_iter().filter_map(|name| self.find(name, 0));
        let aligned = |piece: Piece| Piece { zeros: piece.zeros + padding(piece.bytes + piece.zeros), ..piece };
        parts
            .map(|section| {
                let piece = piece(section, length)?;
                let (name, zeros) = (section.name(), piece.zeros);
                ensure!(
                    zeros <= MOST_ZEROS,
                    "its section {name} has {zeros} bytes more in memory than in the file; make or copy it again"
                );
                Ok(aligned(piece))
            })
            .collect()
    }
}

/// The contents of a section, as they are in memory. `length`: the size of the file, bytes.
///
/// # Errors
///
/// A file that ends within them.
pub fn piece(section: &Section, length: u64) -> Result<Piece> {
    let bytes = u64::from(section.loaded());
    // A section without bytes in the file may have any offset.
    let offset = if bytes > 0 { section.offset.into() } else { 0 };
    ensure!(
        offset + bytes <= length,
        "it is cut off: its section {} ends at byte {}, and the file has {length} bytes; make or copy it again",
        section.name(),
        offset + bytes
    );
    Ok(Piece { offset, bytes, zeros: u64::from(section.memory) - bytes })
}

/// A command line as the stub hands it to the kernel: up to a NUL, control characters as spaces, no space around it
/// (`mangle_stub_cmdline`).
#[must_use]
pub fn cmdline(section: &[u8]) -> String {
    text(section).replace(|letter: char| letter.is_ascii_control(), " ").trim_matches(' ').to_owned()
}

/// The text of a section, up to a NUL.
#[must_use]
pub fn text(section: &[u8]) -> String {
    let end = section.iter().position(|byte| *byte == 0).unwrap_or(section.len());
    String::from_utf8_lossy(section.get(..end).unwrap_or_default()).into_owned()
}

/// The variables in a text of os-release(5): a line for each, the value with or without quotes. The last of a name counts.
#[must_use]
pub fn os_release(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let variables = lines.filter_map(|line| line.split_once('='));
    variables.map(|(name, value)| (name.to_owned(), unquoted(value))).collect()
}

/// A word of a shell without its quotes.
fn unquoted(value: &str) -> String {
    let quote = value.chars().next().filter(|letter| ['"', '\''].contains(letter));
    let inner = quote.and_then(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let (mut letters, mut out) = (inner.unwrap_or(value).chars(), String::new());
    while let Some(letter) = letters.next() {
        let is_escape = letter == '\\' && quote != Some('\'');
        out.extend(if is_escape { letters.next() } else { Some(letter) });
    }
    out
}

/// The program of systemd that a file is. None for one that does not say so.
#[must_use]
pub fn systemd_program(file: &[u8]) -> Option<SystemdProgram> {
    let place = file.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)? + MAGIC.len();
    let said = text(file.get(place..)?.get(..64).or_else(|| file.get(place..))?);
    // Other programs may have these bytes, too, but no word behind them.
    let (kind, version) =
        said.split_once(' ').filter(|(kind, _)| kind.bytes().all(|byte| byte.is_ascii_lowercase()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some(SystemdProgram { kind: kind.into(), version: digits.parse().ok() })
}

#[cfg(test)]
mod tests;
