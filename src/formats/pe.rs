//! Programs for UEFI (Microsoft's PE format, "PE32+"): sections can be added behind those that a program has.

use crate::formats::magic::FileKind;

/// The least alignment of added sections in memory, bytes: systemd's stub hands out the ramdisk from its place in the program.
const PAGE: u64 = 4096;

/// Size of an entry of the section table ("Section Table").
const SECTION_HEADER: usize = 40;

/// Initialized data that can be read ("Section Flags").
const CHARACTERISTICS: u64 = 0x4000_0040;

/// A reason why a program does not get its sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionError {
    /// The bytes are no PE32+ program.
    NoProgram,
    /// Its headers have no room for so many sections.
    NoRoom(usize),
    /// A number in its headers would have more than 32 bits.
    TooLarge,
}

/// The place of a section's contents in the file, bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// The first byte.
    pub offset: u64,
    /// The byte after the last one, padding included.
    pub end: u64,
}

/// Adds sections, each a name of at most eight bytes and a size in bytes, to the headers of a program. Returns the program, and the
/// places where the contents of the sections belong, all of them behind it.
///
/// # Errors
///
/// As [`SectionError`] says.
pub fn with_sections(mut program: Vec<u8>, sections: &[(&str, u64)]) -> Result<(Vec<u8>, Vec<Section>), SectionError> {
    let headers = Headers::parse(&program).ok_or(SectionError::NoProgram)?;
    let no_room = SectionError::NoRoom(sections.len());
    let begin = headers.table + headers.sections * SECTION_HEADER;
    let count = u16::try_from(headers.sections + sections.len()).map_err(|_| no_room)?;
    let alignment = PAGE.max(headers.alignment);
    let (mut address, mut offset) = (headers.image_size, program.len() as u64);
    let mut places = Vec::new();
    // The headers end before the first section, whatever follows the table.
    let table = program.get_mut(begin..headers.size).ok_or(no_room)?;
    for (number, (name, size)) in sections.iter().enumerate() {
        let entry = table.get_mut(number * SECTION_HEADER..).and_then(|rest| rest.get_mut(..SECTION_HEADER));
        let entry = entry.ok_or(no_room)?;
        address = address.next_multiple_of(alignment);
        offset = offset.next_multiple_of(headers.file_alignment);
        let file_size = size.next_multiple_of(headers.file_alignment);
        entry.fill(0);
        put(entry, 0, name.as_bytes())?;
        for (place, value) in [(8, *size), (12, address), (16, file_size), (20, offset), (36, CHARACTERISTICS)] {
            put(entry, place, &word(value)?)?;
        }
        places.push(Section { offset, end: offset + file_size });
        address += size;
        offset += file_size;
    }
    put(&mut program, headers.pe + 6, &count.to_le_bytes())?;
    put(&mut program, headers.pe + 80, &word(address.next_multiple_of(alignment))?)?;
    // The checksum of the program without the sections. UEFI does not look at it.
    put(&mut program, headers.pe + 88, &word(0)?)?;
    Ok((program, places))
}

/// The version of systemd in one of its stubs; none if the stub has no number.
#[must_use]
pub fn systemd_stub_version(stub: &[u8]) -> Option<u32> {
    const BEFORE: &[u8] = b"#### LoaderInfo: systemd-stub ";
    let place = stub.windows(BEFORE.len()).position(|bytes| bytes == BEFORE)? + BEFORE.len();
    let digits: Vec<_> = stub.get(place..)?.iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

/// All sizes in the headers have 32 bits.
fn word(value: u64) -> Result<[u8; 4], SectionError> {
    u32::try_from(value).map(u32::to_le_bytes).map_err(|_| SectionError::TooLarge)
}

fn put(bytes: &mut [u8], place: usize, value: &[u8]) -> Result<(), SectionError> {
    let target = bytes.get_mut(place..).and_then(|rest| rest.get_mut(..value.len()));
    target.ok_or(SectionError::NoProgram)?.copy_from_slice(value);
    Ok(())
}

/// The fields of a program's headers that matter here.
struct Headers {
    /// The place where they begin, behind those for DOS.
    pe: usize,
    /// The place where the section table begins.
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
        let half = |place: usize| Some(u16::from_le_bytes(*program.get(place..)?.first_chunk()?));
        let word = |place: usize| Some(u32::from_le_bytes(*program.get(place..)?.first_chunk()?));
        let pe = usize::try_from(word(0x3c)?).ok()?;
        // "PE32+": with addresses of 64 bits
        if !FileKind::EfiProgram.is_kind_of(program)
            || !program.get(pe..)?.starts_with(b"PE\0\0")
            || half(pe + 24)? != 0x20b
        {
            return None;
        }
        let (alignment, file_alignment) = (u64::from(word(pe + 56)?), u64::from(word(pe + 60)?));
        if !alignment.is_power_of_two() || !file_alignment.is_power_of_two() {
            return None;
        }
        Some(Self {
            pe,
            table: pe + 24 + usize::from(half(pe + 20)?),
            sections: half(pe + 6)?.into(),
            size: usize::try_from(word(pe + 84)?).ok()?,
            image_size: word(pe + 80)?.into(),
            alignment,
            file_alignment,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The headers of a program with one section, and room for six.
    pub fn program() -> Vec<u8> {
        let mut program = vec![0; 0x400];
        program[..2].copy_from_slice(b"MZ");
        program[0x3c] = 0x40;
        program[0x40..0x44].copy_from_slice(b"PE\0\0");
        for (place, value) in [(6, 1_u16), (20, 112), (24, 0x20b), (4, 0x8664), (22, 0x206), (92, 10)] {
            put(&mut program, 0x40 + place, &value.to_le_bytes()).unwrap();
        }
        for (place, value) in [(56, 0x200_u32), (60, 0x200), (80, 0x1300), (84, 0x400), (88, 7)] {
            put(&mut program, 0x40 + place, &value.to_le_bytes()).unwrap();
        }
        let section = 0x40 + 24 + 112;
        program[section..section + 5].copy_from_slice(b".text");
        for (place, value) in [(8, 0x100_u32), (12, 0x1000), (16, 0x200), (20, 0x400)] {
            put(&mut program, section + place, &value.to_le_bytes()).unwrap();
        }
        program.extend([0x90; 0x200]);
        program
    }

    #[test]
    fn programs_without_room_for_sections() {
        let section = |size| [(".initrd", size)];
        let mut other = program();
        other[0x40 + 24] = 0x0b; // PE32
        other[0x40 + 25] = 0x01;
        let mut full = program();
        full[0x46] = 20;
        let mut short = program();
        short.truncate(0x300); // ends within its headers
        for (stub, size, expected) in [
            (b"#!/bin/sh".to_vec(), 1, SectionError::NoProgram),
            (other, 1, SectionError::NoProgram),
            (full, 1, SectionError::NoRoom(1)),
            (short, 1, SectionError::NoRoom(1)),
            (program(), u64::from(u32::MAX), SectionError::TooLarge),
        ] {
            assert_eq!(with_sections(stub, &section(size)).unwrap_err(), expected);
        }
    }

    #[test]
    fn places_of_sections() {
        let (program, places) = with_sections(program(), &[(".a", 1), (".b", 0x201)]).unwrap();
        assert_eq!(program.len(), 0x600);
        assert_eq!(places, [Section { offset: 0x600, end: 0x800 }, Section { offset: 0x800, end: 0xc00 }]);
    }

    #[test]
    fn versions_of_stubs() {
        for (text, expected) in [
            ("#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####", Some(257)),
            ("#### LoaderInfo: systemd-stub main ####", None),
            ("", None),
        ] {
            assert_eq!(systemd_stub_version(text.as_bytes()), expected, "{text}");
        }
    }
}
