//! Sections that are added to a program, as `pe_add_sections` in ukify.py of systemd 257 does it.

use crate::formats::pe::{Program, Section};
use object::LittleEndian as LE;
use object::pe::{
    IMAGE_FILE_LOCAL_SYMS_STRIPPED, IMAGE_SCN_CNT_CODE, IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ,
    ImageNtHeaders64, ImageSectionHeader,
};
use object::pod;
use object::{U16, U32};

/// The least alignment of added sections in memory, bytes: systemd's stub hands out the ramdisk from its place in the program.
const PAGE: u64 = 4096;

/// The largest alignment of sections, bytes: a large page. In the file the specification has at most 64 KiB ("Optional Header
/// Windows-Specific Fields"). As many zeros come between sections.
const LARGEST_ALIGNMENT: u32 = 2 << 20;

/// Size of an entry of the section table ("Section Table").
const ENTRY: usize = size_of::<ImageSectionHeader>();

/// A section to add.
#[derive(Debug, Clone, Copy)]
pub struct NewSection<'a> {
    /// Its name, at most eight bytes.
    pub name: &'a str,
    /// Its size in the file and in memory, bytes.
    pub bytes: u64,
    /// Whether its contents are executed where they are. They are data otherwise.
    pub is_code: bool,
}

/// The place of a section's contents in the file, bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The first byte.
    pub offset: u64,
    /// The byte after the last one, padding included.
    pub end: u64,
}

/// A reason why a program does not get its sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionError {
    /// It is not fit for them. The end of a sentence that begins with "it".
    Unfit(String),
    /// A number in its headers would have more than 32 bits.
    TooLarge,
}

/// Adds sections to the headers of a program, the headers of which were parsed and which is whole. Returns the program, and the places
/// where the contents of the sections belong, all of them behind it.
///
/// # Errors
///
/// As [`SectionError`] says.
pub fn with_sections(
    mut file: Vec<u8>,
    program: &Program,
    sections: &[NewSection],
) -> Result<(Vec<u8>, Vec<Place>), SectionError> {
    ensure_fit(program, &sections.iter().map(|section| section.name).collect::<Vec<_>>())?;
    let strips = program.symbols.filter(|(_, end)| *end == file.len() as u64);
    if let Some(begin) = strips.and_then(|(begin, _)| usize::try_from(begin).ok()) {
        // Bytes that are in no section would lie between the sections then, where a signature cannot cover them.
        file.truncate(begin);
    }
    let (begin, end) = room(&file, program, sections.len())?;
    let ends = program.sections.iter().map(|section| section.addresses().1);
    let mut address = ends.chain([program.memory.into()]).max().unwrap_or_default();
    let alignment = PAGE.max(program.alignment.into());
    let file_alignment = u64::from(program.file_alignment);
    let mut offset = file.len() as u64;
    let (mut places, mut entries, mut data) = (Vec::new(), Vec::new(), 0);
    for section in sections {
        word(section.bytes)?;
        address = address.next_multiple_of(alignment);
        offset = offset.next_multiple_of(file_alignment);
        let padded = section.bytes.next_multiple_of(file_alignment);
        entries.extend_from_slice(pod::bytes_of(&entry(section, address, offset, padded)?));
        places.push(Place { offset, end: offset + padded });
        address += section.bytes;
        offset += padded;
        data += section.bytes;
    }
    // The end of the file, too: the table of signatures that is put there has an offset of 32 bits.
    word(offset)?;
    let memory = word(address.next_multiple_of(alignment))?;
    let table = file.get_mut(begin..).and_then(|rest| rest.get_mut(..entries.len())).ok_or_else(not_whole)?;
    table.copy_from_slice(&entries);

    let headers = file.get_mut(program.headers..).ok_or_else(not_whole)?;
    let (nt, _) = pod::from_bytes_mut::<ImageNtHeaders64>(headers).map_err(|()| not_whole())?;
    let count = nt.file_header.number_of_sections.get(LE).saturating_add(places.len().try_into().unwrap_or(u16::MAX));
    nt.file_header.number_of_sections = U16::new(LE, count);
    if strips.is_some() {
        nt.file_header.pointer_to_symbol_table = U32::new(LE, 0);
        nt.file_header.number_of_symbols = U32::new(LE, 0);
        let characteristics = nt.file_header.characteristics.get(LE) | IMAGE_FILE_LOCAL_SYMS_STRIPPED;
        nt.file_header.characteristics.set(LE, characteristics);
    }
    let optional = &mut nt.optional_header;
    let initialized = u64::from(optional.size_of_initialized_data.get(LE)) + data;
    optional.size_of_initialized_data = word(initialized)?;
    optional.size_of_image = memory;
    optional.size_of_headers = word(end as u64)?;
    // It would be that of the program without the sections. UEFI does not look at it.
    optional.check_sum = U32::new(LE, 0);
    Ok((file, places))
}

fn entry(section: &NewSection, address: u64, offset: u64, padded: u64) -> Result<ImageSectionHeader, SectionError> {
    let mut name = [0; 8];
    name.iter_mut().zip(section.name.bytes()).for_each(|(to, from)| *to = from);
    let contents = if section.is_code { IMAGE_SCN_CNT_CODE } else { IMAGE_SCN_CNT_INITIALIZED_DATA };
    Ok(ImageSectionHeader {
        name,
        virtual_size: word(section.bytes)?,
        virtual_address: word(address)?,
        size_of_raw_data: word(padded)?,
        pointer_to_raw_data: word(offset)?,
        pointer_to_relocations: U32::default(),
        pointer_to_linenumbers: U32::default(),
        number_of_relocations: U16::default(),
        number_of_linenumbers: U16::default(),
        characteristics: U32::new(LE, contents | IMAGE_SCN_MEM_READ),
    })
}

/// Makes sure that sections of these names can be added to a program, and that it starts with them.
///
/// # Errors
///
/// A program that is signed, that is damaged, or that has one of them; other kinds of programs.
pub fn ensure_fit(program: &Program, names: &[&str]) -> Result<(), SectionError> {
    let unfit = |reason: &str| Err(SectionError::Unfit(reason.into()));
    if !program.is_64_bit {
        return unfit("is a program with 32 bits, and firn adds sections to those with 64 bits only");
    }
    if program.is_signed {
        return unfit("is signed, and added sections would break its signature (sign the image instead)");
    }
    if let Some(name) = names.iter().find(|new| program.sections.iter().any(|old| old.is(new))) {
        return unfit(&format!("has a section {name} already, as unified kernel images and their addons have"));
    }
    let is_wrong = |alignment: &u32| !alignment.is_power_of_two() || *alignment > LARGEST_ALIGNMENT;
    if let Some(wrong) = [program.alignment, program.file_alignment].into_iter().find(is_wrong) {
        return unfit(&format!("is damaged: its sections have an alignment of {wrong} bytes"));
    }
    let headers = ("its headers".to_owned(), (0, u64::from(program.headers_bytes)));
    let text_of = |section: &Section| format!("its section {}", section.name());
    let in_memory = program.sections.iter().map(|section| (text_of(section), section.addresses()));
    let in_file = program.sections.iter().map(|section| (text_of(section), section.file()));
    for (place, parts) in [
        ("memory", [headers.clone()].into_iter().chain(in_memory).collect::<Vec<_>>()),
        ("the file", [headers].into_iter().chain(in_file).collect()),
    ] {
        if let Some((one, other)) = overlap(parts) {
            return unfit(&format!("is damaged: {one} and {other} overlap in {place}"));
        }
    }
    Ok(())
}

/// Two parts that overlap. Empty ones do not.
fn overlap(mut parts: Vec<(String, (u64, u64))>) -> Option<(String, String)> {
    parts.retain(|(_, (begin, end))| begin < end);
    parts.sort_by_key(|(_, place)| *place);
    let pairs = parts.iter().zip(parts.iter().skip(1));
    pairs.into_iter().find(|(one, other)| other.1.0 < one.1.1).map(|(one, other)| (one.0.clone(), other.0.clone()))
}

/// The offset of the first new entry of the section table, and the new size of the headers. As in ukify, the headers may grow up to
/// a multiple of the alignment in the file, since nothing else is there.
fn room(file: &[u8], program: &Program, count: usize) -> Result<(usize, usize), SectionError> {
    let no_room = || SectionError::Unfit(format!("has no room for {count} more sections in its headers"));
    let begin = program.table + program.sections.len() * ENTRY;
    let in_file = program.sections.iter().filter(|section| section.bytes > 0).map(|section| section.offset);
    let in_memory = program.sections.iter().map(|section| section.address);
    let first = in_file.chain(in_memory).min().unwrap_or_default();
    let grown = program.headers_bytes.checked_next_multiple_of(program.file_alignment).unwrap_or(u32::MAX);
    let end = if grown <= first { grown } else { program.headers_bytes };
    let end = usize::try_from(end).map_err(|_| no_room())?;
    let entries = begin..begin.saturating_add(count.saturating_mul(ENTRY));
    let is_free = entries.end <= end && file.get(entries).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
    let is_counted = program.sections.len() + count <= u16::MAX.into();
    if is_free && is_counted { Ok((begin, end)) } else { Err(no_room()) }
}

/// All sizes in the headers have 32 bits.
fn word(value: u64) -> Result<U32<LE>, SectionError> {
    u32::try_from(value).map(|value| U32::new(LE, value)).map_err(|_| SectionError::TooLarge)
}

fn not_whole() -> SectionError {
    SectionError::Unfit("is cut off".into())
}
