//! Programs for UEFI (Microsoft's "PE Format", read by the `object` crate): systemd's stub, unified kernel images, kernels.

use anyhow::{Result, anyhow, bail, ensure};
use object::LittleEndian as LE;
use object::pe::{
    self, IMAGE_DIRECTORY_ENTRY_SECURITY, IMAGE_NT_OPTIONAL_HDR32_MAGIC, IMAGE_NT_OPTIONAL_HDR64_MAGIC, ImageDosHeader,
    ImageNtHeaders32, ImageNtHeaders64, ImageSectionHeader,
};
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, optional_header_magic};
use std::fmt;

pub mod added;
#[cfg(test)]
pub(crate) mod tests;

/// As many bytes of the start of a file as [`Program::parse`] needs, or all that the file has. Real headers have a few kilobytes.
pub const START: u64 = 1 << 20;

/// Size of a symbol in the table of symbols ("COFF Symbol Table"), bytes.
const SYMBOL: u64 = 18;

/// The headers of a program.
#[derive(Debug, Clone)]
pub struct Program {
    /// The machine that it runs on.
    pub machine: Machine,
    /// Whether it has addresses of 64 bits ("PE32+").
    pub is_64_bit: bool,
    /// Its size in memory with all that is not in the file, bytes (`SizeOfImage`).
    pub memory: u32,
    /// Whether it has a signature, good or not.
    pub is_signed: bool,
    /// Its sections, in the order of the table.
    pub sections: Vec<Section>,
    /// The offset of the headers, behind those for DOS.
    headers: usize,
    /// The size of all headers, bytes (`SizeOfHeaders`).
    headers_bytes: u32,
    /// The offset of the section table.
    table: usize,
    /// The alignment of sections in memory, bytes.
    alignment: u32,
    /// The alignment of sections in the file, bytes.
    file_alignment: u32,
    /// The offset of the table of symbols and the offset behind it and its strings.
    symbols: Option<(u64, u64)>,
}

/// A section of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its name, with NULs behind it.
    pub name: [u8; 8],
    /// Its address, relative to that of the program.
    pub address: u32,
    /// Its size in memory, bytes (`VirtualSize`). What the file does not have is zero.
    pub memory: u32,
    /// Its offset in the file, bytes.
    pub offset: u32,
    /// Its size in the file, bytes, padding included (`SizeOfRawData`).
    pub bytes: u32,
}

/// The machine of a program, by its number ("Machine Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine(pub u16);

impl Program {
    /// Parses the headers of a program: the first [`START`] bytes of a file, and the size of the file in bytes.
    ///
    /// # Errors
    ///
    /// Bytes that are no program, and headers that are cut off. The error is a part of a sentence: "it is no program ...".
    pub fn parse(start: &[u8], length: u64) -> Result<Self> {
        let parsed = match optional_header_magic(start) {
            Ok(IMAGE_NT_OPTIONAL_HDR32_MAGIC) => Self::of::<ImageNtHeaders32>(start, length),
            Ok(IMAGE_NT_OPTIONAL_HDR64_MAGIC) => Self::of::<ImageNtHeaders64>(start, length),
            Ok(other) => bail!("it is no program for UEFI: its kind is {other:#x}"),
            Err(error) => Err(error),
        };
        let program = parsed.map_err(|error| anyhow!("it is no program for UEFI, or it is cut off: {error}"))?;
        ensure!(!program.sections.is_empty(), "it is no program for UEFI: it has no sections");
        Ok(program)
    }

    /// The same for a file that has to have all that its headers say.
    ///
    /// # Errors
    ///
    /// Those of [`parse`](Self::parse), and a file that is cut off.
    pub fn of_whole(start: &[u8], length: u64) -> Result<Self> {
        let program = Self::parse(start, length)?;
        program.ensure_whole(length)?;
        Ok(program)
    }

    fn of<Headers: ImageNtHeaders>(start: &[u8], length: u64) -> object::read::Result<Self> {
        let headers = ImageDosHeader::parse(start)?.nt_headers_offset();
        let mut offset = headers.into();
        let (nt, directories) = Headers::parse(start, &mut offset)?;
        let (file, optional) = (nt.file_header(), nt.optional_header());
        let sections = nt.sections(start, offset)?;
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Self {
            machine: Machine(file.machine.get(LE).0),
            is_64_bit: nt.is_type_64(),
            memory: optional.size_of_image(),
            is_signed: directories.get(IMAGE_DIRECTORY_ENTRY_SECURITY).is_some(),
            sections: sections.iter().map(Section::of).collect(),
            headers: number(headers.into()),
            headers_bytes: optional.size_of_headers(),
            table: number(offset),
            alignment: optional.section_alignment(),
            file_alignment: optional.file_alignment(),
            symbols: symbols(start, length, file),
        })
    }

    fn ensure_whole(&self, length: u64) -> Result<()> {
        let in_file = self.sections.iter().filter(|section| section.bytes > 0);
        let of_sections = in_file.map(|section| (format!("its section {}", section.name()), section.file().1));
        let of_headers = ("its headers".to_owned(), u64::from(self.headers_bytes));
        let of_symbols = self.symbols.map(|(_, end)| ("its table of symbols".to_owned(), end));
        for (part, end) in [of_headers].into_iter().chain(of_sections).chain(of_symbols) {
            ensure!(end <= length, "it is cut off: {part} ends at byte {end}, and the file has {length} bytes");
        }
        Ok(())
    }
}

/// The table of symbols. The size of the strings behind it is the first field of them.
fn symbols(start: &[u8], length: u64, file: &pe::ImageFileHeader) -> Option<(u64, u64)> {
    let begin = Some(u64::from(file.pointer_to_symbol_table.get(LE))).filter(|begin| *begin > 0)?;
    let end = begin + SYMBOL * u64::from(file.number_of_symbols.get(LE));
    let strings = usize::try_from(end).ok().and_then(|end| start.get(end..)?.first_chunk());
    let strings = match strings {
        Some(bytes) => u32::from_le_bytes(*bytes).into(),
        // The file may end with the symbols, or be cut off.
        None if end == length => 0,
        None => size_of::<u32>() as u64,
    };
    Some((begin, end + strings))
}

impl Section {
    fn of(header: &ImageSectionHeader) -> Self {
        Self {
            name: header.name,
            address: header.virtual_address.get(LE),
            memory: header.virtual_size.get(LE),
            offset: header.pointer_to_raw_data.get(LE),
            bytes: header.size_of_raw_data.get(LE),
        }
    }

    /// Its name. Bytes that are no text are replaced.
    #[must_use]
    pub fn name(&self) -> String {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(self.name.get(..end).unwrap_or_default()).into_owned()
    }

    /// Whether this is its name. Of a longer name it has the first eight bytes.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name() == name
    }

    /// The offsets in the file of its first byte and behind its last one, padding included.
    #[must_use]
    pub fn file(&self) -> (u64, u64) {
        (self.offset.into(), u64::from(self.offset) + u64::from(self.bytes))
    }

    /// The number of bytes that are read from the file. The rest of the file's bytes is padding, and the rest in memory is zero.
    #[must_use]
    pub fn loaded(&self) -> u32 {
        self.bytes.min(self.memory)
    }

    /// The addresses of its first byte and behind its last one. Some linkers leave the size in memory out (EDK II,
    /// `PeCoffLoaderLoadImage`).
    fn addresses(&self) -> (u64, u64) {
        let bytes = if self.memory == 0 { self.bytes } else { self.memory };
        (self.address.into(), u64::from(self.address) + u64::from(bytes))
    }
}

impl Machine {
    /// Its name in the names of files such as `BOOTX64.EFI` and `linuxx64.efi.stub`, in lower case (UEFI 2.10, 3.5.1.1). That of x86-64
    /// for a machine that systemd has no stub for.
    #[must_use]
    pub fn in_names_of_files(self) -> &'static str {
        match pe::Machine(self.0) {
            pe::IMAGE_FILE_MACHINE_ARM64 => "aa64",
            pe::IMAGE_FILE_MACHINE_I386 => "ia32",
            pe::IMAGE_FILE_MACHINE_THUMB => "arm",
            pe::IMAGE_FILE_MACHINE_RISCV64 => "riscv64",
            _ => "x64",
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match pe::Machine(self.0) {
            pe::IMAGE_FILE_MACHINE_AMD64 => f.write_str("x86-64"),
            pe::IMAGE_FILE_MACHINE_ARM64 => f.write_str("AArch64"),
            pe::IMAGE_FILE_MACHINE_I386 => f.write_str("x86 with 32 bits"),
            pe::IMAGE_FILE_MACHINE_ARM | pe::IMAGE_FILE_MACHINE_THUMB => f.write_str("Arm with 32 bits"),
            pe::IMAGE_FILE_MACHINE_RISCV64 => f.write_str("RISC-V with 64 bits"),
            _ => write!(f, "the machine {:#06x}", self.0),
        }
    }
}
