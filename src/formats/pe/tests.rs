use super::added::{NewSection, Place, SectionError, with_sections};
use super::*;
use object::pod;
use object::read::pe::PeFile64;
use object::{Object, ObjectSection, U16, U32};

const X86_64: u16 = 0x8664;

/// A program with headers of this size and these sections: names, addresses, sizes in memory, contents.
fn made_of(machine: u16, memory: u32, headers: u32, alignment: u32, sections: &[(&str, u32, u32, &[u8])]) -> Vec<u8> {
    let mut program = vec![0; headers.try_into().unwrap()];
    program[..2].copy_from_slice(b"MZ");
    program[0x3c] = 0x40;
    let mut begin = headers;
    for (number, (name, address, size, contents)) in sections.iter().enumerate() {
        let bytes = u32::try_from(contents.len()).unwrap().next_multiple_of(alignment);
        let mut header = *pod::from_bytes::<ImageSectionHeader>(&[0; 40]).unwrap().0;
        header.name[..name.len()].copy_from_slice(name.as_bytes());
        header.virtual_address = U32::new(LE, *address);
        header.virtual_size = U32::new(LE, *size);
        header.size_of_raw_data = U32::new(LE, bytes);
        header.pointer_to_raw_data = U32::new(LE, begin);
        begin += bytes;
        let entry = 0x40 + 24 + 112 + 40 * number;
        program[entry..entry + 40].copy_from_slice(pod::bytes_of(&header));
        program.extend_from_slice(contents);
        program.resize(begin.try_into().unwrap(), 0);
    }
    edit(&mut program, |nt| {
        nt.signature = U32::new(LE, pe::IMAGE_NT_SIGNATURE);
        nt.file_header.machine = U16::new(LE, pe::Machine(machine));
        nt.file_header.number_of_sections = U16::new(LE, sections.len().try_into().unwrap());
        nt.file_header.size_of_optional_header = U16::new(LE, 112);
        nt.file_header.characteristics = U16::new(LE, pe::IMAGE_FILE_EXECUTABLE_IMAGE);
        let optional = &mut nt.optional_header;
        optional.magic = U16::new(LE, IMAGE_NT_OPTIONAL_HDR64_MAGIC);
        optional.section_alignment = U32::new(LE, 0x200);
        optional.file_alignment = U32::new(LE, alignment);
        optional.size_of_image = U32::new(LE, memory);
        optional.size_of_headers = U32::new(LE, headers);
        optional.check_sum = U32::new(LE, 7);
        optional.subsystem = U16::new(LE, pe::IMAGE_SUBSYSTEM_EFI_APPLICATION);
    });
    program
}

/// Changes the headers of a program of [`made_of`].
pub fn edit(program: &mut [u8], change: impl FnOnce(&mut ImageNtHeaders64)) {
    change(pod::from_bytes_mut(&mut program[0x40..]).unwrap().0);
}

/// Changes the header of a section.
fn edit_section(program: &mut [u8], number: usize, change: impl FnOnce(&mut ImageSectionHeader)) {
    change(pod::from_bytes_mut(&mut program[0x40 + 24 + 112 + 40 * number..]).unwrap().0);
}

/// A stub with two sections, whose headers have room for 18 more.
pub fn stub() -> Vec<u8> {
    let sections: [(_, _, _, &[u8]); 2] =
        [(".text", 0x1000, 0x100, &[0x90; 0x100]), (".sbat", 0x1200, 0x20, b"sbat,1,\n")];
    made_of(X86_64, 0x1300, 0x400, 0x200, &sections)
}

/// A kernel of 768 bytes that needs this much memory, bytes, and ends with `kernel`.
pub fn kernel(machine: u16, memory: u32) -> Vec<u8> {
    let mut contents = [0; 0x100];
    contents[0xfa..].copy_from_slice(b"kernel");
    made_of(machine, memory, 0x200, 0x20, &[(".text", 0x1000, 0x200, &contents)])
}

/// A unified kernel image with these sections behind those of the stub.
pub fn uki(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let new: Vec<_> = sections.iter().map(|(name, contents)| data(name, contents.len() as u64)).collect();
    let (mut file, places) = added(stub(), &new).unwrap();
    for (place, (_, contents)) in places.iter().zip(sections) {
        file.resize(place.offset.try_into().unwrap(), 0);
        file.extend_from_slice(contents);
        file.resize(place.end.try_into().unwrap(), 0);
    }
    file
}

fn data(name: &str, bytes: u64) -> NewSection<'_> {
    NewSection { name, bytes, is_code: false }
}

fn added(file: Vec<u8>, sections: &[NewSection]) -> Result<(Vec<u8>, Vec<Place>), SectionError> {
    let program =
        Program::of_whole(&file, file.len() as u64).map_err(|error| SectionError::Unfit(error.to_string()))?;
    with_sections(file, &program, sections)
}

#[test]
fn c_11_sections_lie_where_a_foreign_reader_expects_them() {
    let code = NewSection { name: ".linux", bytes: 0x201, is_code: true };
    let (head, places) = added(stub(), &[data(".cmdline", 1), data(".initrd", 0x1001), code]).unwrap();
    assert_eq!(head.len(), 0x800);
    let place = |offset, end| Place { offset, end };
    assert_eq!(places, [place(0x800, 0xa00), place(0xa00, 0x1c00), place(0x1c00, 0x2000)]);
    let mut file = head;
    file.resize(0x2000, 0);
    let read = PeFile64::parse(&*file).unwrap();
    let names: Vec<_> = read.sections().map(|section| section.name().unwrap().to_owned()).collect();
    assert_eq!(names, [".text", ".sbat", ".cmdline", ".initrd", ".linux"]);
    let table: Vec<_> = read.section_table().iter().skip(2).collect();
    let memory: Vec<_> =
        table.iter().map(|entry| (entry.virtual_address.get(LE), entry.virtual_size.get(LE))).collect();
    assert_eq!(memory, [(0x2000, 1), (0x3000, 0x1001), (0x5000, 0x201)]);
    let flags: Vec<_> = table.iter().map(|entry| entry.characteristics.get(LE).0).collect();
    assert_eq!(flags, [0x4000_0040, 0x4000_0040, 0x4000_0020]);
    let optional = &read.nt_headers().optional_header;
    assert_eq!((optional.size_of_image.get(LE), optional.check_sum.get(LE)), (0x6000, 0));
    assert_eq!(optional.size_of_initialized_data.get(LE), 1 + 0x1001 + 0x201);
    assert_eq!(optional.size_of_headers.get(LE), 0x400);
}

#[test]
fn c_11_symbols_at_the_end_of_the_stub_are_left_out() {
    let with_symbols = |strings: u32, left: &[u8]| {
        let mut file = stub();
        let begin = file.len().try_into().unwrap();
        edit(&mut file, |nt| {
            nt.file_header.pointer_to_symbol_table = U32::new(LE, begin);
            nt.file_header.number_of_symbols = U32::new(LE, 2);
        });
        file.extend([1; 2 * 18]);
        file.extend(strings.to_le_bytes());
        file.extend_from_slice(left);
        file
    };
    let (head, places) = added(with_symbols(9, b"name\0"), &[data(".cmdline", 1)]).unwrap();
    assert_eq!((head.len(), places[0].offset), (stub().len(), 0x800));
    let read = Program::parse(&head, 0xa00).unwrap();
    assert_eq!(read.symbols, None);

    // Behind other bytes they stay.
    let (head, places) = added(with_symbols(9, b"name\0and more"), &[data(".cmdline", 1)]).unwrap();
    assert_eq!((head.len(), places[0].offset), (0x800 + 2 * 18 + 4 + 13, 0xa00));
    let error = added(with_symbols(9, b"nam"), &[data(".cmdline", 1)]).unwrap_err();
    let expected = "it is cut off: its table of symbols ends at byte 2093, and the file has 2091 bytes";
    assert_eq!(error, SectionError::Unfit(expected.into()));
}

/// A program, the size of a section and a part of the error.
type Refusal = (Vec<u8>, u64, &'static str);

#[test]
fn c_11_programs_that_get_no_sections() {
    let with = |change: fn(&mut ImageNtHeaders64)| {
        let mut program = stub();
        edit(&mut program, change);
        program
    };
    let with_section = |number, change: fn(&mut ImageSectionHeader)| {
        let mut program = stub();
        edit_section(&mut program, number, change);
        program
    };
    let mut signed = stub();
    edit(&mut signed, |nt| {
        nt.optional_header.number_of_rva_and_sizes = U32::new(LE, 5);
        nt.file_header.size_of_optional_header = U16::new(LE, 112 + 40);
        nt.file_header.number_of_sections = U16::new(LE, 1);
    });
    let directory = 0x40 + 24 + 112 + 4 * 8;
    // The table of sections is behind the directories then.
    signed.copy_within(0x40 + 24 + 112..0x40 + 24 + 112 + 40, 0x40 + 24 + 112 + 40);
    signed[0x40 + 24 + 112..0x40 + 24 + 152].fill(0);
    signed[directory..directory + 4].copy_from_slice(&0x800_u32.to_le_bytes());
    let mut taken = stub();
    taken[0x40 + 24 + 112 + 80 + 3] = 1;
    let refusals: [Refusal; 17] = [
        (b"#!/bin/sh".to_vec(), 1, "it is no program for UEFI, or it is cut off: Invalid DOS header"),
        (b"MZ".to_vec(), 1, "it is no program for UEFI, or it is cut off: Invalid DOS header"),
        (with(|nt| nt.optional_header.magic = U16::new(LE, 0x107)), 1, "no program for UEFI: its kind is 0x107"),
        (with(|nt| nt.file_header.number_of_sections = U16::new(LE, 0)), 1, "no program for UEFI: it has no sections"),
        (with(|nt| nt.optional_header.magic = U16::new(LE, 0x10b)), 1, "is a program with 32 bits"),
        (with(|nt| nt.optional_header.section_alignment = U32::new(LE, 0x300)), 1, "have an alignment of 768 bytes"),
        (with(|nt| nt.optional_header.file_alignment = U32::new(LE, 1 << 22)), 1, "an alignment of 4194304 bytes"),
        (
            with_section(0, |header| header.virtual_address = U32::new(LE, 0x3ff)),
            1,
            "its headers and its section .text overlap in memory",
        ),
        (
            with_section(0, |header| header.pointer_to_raw_data = U32::new(LE, 0x3ff)),
            1,
            "its headers and its section .text overlap in the file",
        ),
        (
            with(|nt| nt.file_header.number_of_sections = U16::new(LE, 20)),
            1,
            "no room for 1 more sections in its headers",
        ),
        (signed, 1, "is signed, and added sections would break its signature"),
        (uki(&[(".initrd", b"x")]), 1, "has a section .initrd already"),
        (
            with_section(1, |header| header.virtual_address = U32::new(LE, 0x10ff)),
            1,
            "section .text and its section .sbat overlap in memory",
        ),
        (with_section(1, |header| header.pointer_to_raw_data = U32::new(LE, 0x500)), 1, "overlap in the file"),
        (
            with_section(1, |header| header.size_of_raw_data = U32::new(LE, 0x400)),
            1,
            "it is cut off: its section .sbat ends at byte 2560",
        ),
        (taken, 1, "has no room for 1 more sections in its headers"),
        (stub(), 0, ""),
    ];
    for (program, size, expected) in refusals {
        match added(program, &[data(".initrd", size)]) {
            Err(SectionError::Unfit(reason)) => assert!(!expected.is_empty() && reason.contains(expected), "{reason}"),
            other => assert!(expected.is_empty() && other.is_ok(), "{expected}"),
        }
    }
    let too_large = [u64::from(u32::MAX), u64::MAX];
    for size in too_large {
        assert_eq!(added(stub(), &[data(".initrd", size)]).unwrap_err(), SectionError::TooLarge);
    }
    let names: Vec<_> = (0..19).map(|number| format!(".{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| data(name, 1)).collect();
    assert_eq!(added(stub(), &many[1..]).unwrap().1.len(), 18);
    let error = added(stub(), &many).unwrap_err();
    assert_eq!(error, SectionError::Unfit("has no room for 19 more sections in its headers".into()));
}

#[test]
fn c_11_a_stub_that_is_cut_off_anywhere_is_refused() {
    let whole = stub();
    for length in 0..whole.len() {
        let error = Program::of_whole(&whole[..length], length as u64).unwrap_err().to_string();
        assert!(error.contains("cut off"), "{length}: {error}");
    }
    Program::of_whole(&whole, whole.len() as u64).unwrap();
}

#[test]
fn c_11_headers_grow_up_to_the_first_section() {
    let mut program = stub();
    // As objcopy leaves them: the size of what is used.
    edit(&mut program, |nt| nt.optional_header.size_of_headers = U32::new(LE, 0x148));
    let (head, _) = added(program, &[data(".cmdline", 1)]).unwrap();
    assert_eq!(Program::parse(&head, 0xa00).unwrap().headers_bytes, 0x200);
}

#[test]
fn names_of_machines() {
    for (number, text, in_names_of_files) in [
        (X86_64, "x86-64", "x64"),
        (0xaa64, "AArch64", "aa64"),
        (0x14c, "x86 with 32 bits", "ia32"),
        (1, "the machine 0x0001", "x64"),
    ] {
        assert_eq!(
            (Machine(number).to_string().as_str(), Machine(number).in_names_of_files()),
            (text, in_names_of_files)
        );
    }
}
