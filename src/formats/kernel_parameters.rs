//! The parameters that a kernel image knows, read from its tables (init/main.c and kernel/params.c of Linux 6.1 to 7.3). All other words
//! of a command line are for init, and the kernel has places for a few of them only.
//!
//! An x86 image is a small program with the ELF file of the kernel packed in it. In this ELF file the tables have the addresses of names,
//! as numbers of eight bytes.

use crate::formats::compression::SegmentCompression;
use crate::formats::magic::FileKind;
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{LittleEndian, elf};
use std::collections::HashSet;
use std::io::Read;
use std::iter::successors;
use std::ops::Range;

/// The largest kernel that is unpacked, bytes.
const LARGEST: u64 = 512 << 20;

/// The fewest entries of a table: a smaller one is something else.
const FEWEST: usize = 20;

/// A part of the image that is loaded at an address.
struct Segment {
    address: u64,
    file: Range<usize>,
}

/// A kernel, unpacked.
struct Kernel {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
}

/// The parameters of a kernel.
#[derive(Debug, Default)]
pub struct KernelParameters {
    /// Of `__setup` and `early_param`: a name, or with `=` the beginning of a word.
    setup: HashSet<String>,
    /// Of `core_param` and `module_param`: names, with `_` for `-`.
    names: HashSet<String>,
    /// Whether words that begin with `BOOT_IMAGE` or `kexec` are left out: Linux 6.18, 6.1.157 and others.
    leaves_out_loaders: bool,
}

/// The parameters without a dot of Debian's kernels 6.1, 6.12 and 7.3, and others of the kernel's documentation.
const COMMON: &str = include_str!("kernel_parameters.txt");

impl KernelParameters {
    /// Reads the tables of a kernel image. `None` for an image for another machine than x86-64, or one in a form that firn does not
    /// know.
    #[must_use]
    pub fn of_image(image: &[u8]) -> Option<Self> {
        let kernel = Kernel::of_image(image)?;
        // include/linux/init.h, struct obs_kernel_param: the name, a function, whether it is early.
        let setup = kernel.table("init=", 24, |entry| {
            let function = number(entry, 8)?;
            let is_flag = matches!(entry.get(16..20)?, [0 | 1, 0, 0, 0]);
            Some(is_flag && (function == 0 || kernel.place(function).is_some()))
        });
        // include/linux/moduleparam.h, struct kernel_param: the name, the module (0: it is built in), functions, and others.
        let names = kernel.table("initcall_debug", 40, |entry| {
            Some(number(entry, 8)? == 0 && kernel.place(number(entry, 16)?).is_some())
        });
        let leaves_out_loaders = kernel.text("BOOT_IMAGE").next().is_some();
        (setup.len() >= FEWEST && names.len() >= FEWEST).then_some(Self { setup, names, leaves_out_loaders })
    }

    /// The parameters of kernels that firn cannot read.
    #[must_use]
    pub fn common() -> Self {
        let setup: HashSet<String> = COMMON.split_whitespace().map(Into::into).collect();
        Self { names: setup.clone(), setup, leaves_out_loaders: false }
    }

    /// Whether the kernel keeps a word (as it is without quotes) for itself.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        let name = word.split_once('=').map_or(word, |(name, _)| name);
        self.names.contains(&name.replace('-', "_"))
            || SYSCTL.contains(&name)
            || self.leaves_out_loaders && ["BOOT_IMAGE", "kexec"].iter().any(|loader| word.starts_with(loader))
            || self.setup.contains(name)
            || word.split_once('=').is_some() && self.setup.contains(&format!("{name}="))
    }
}

/// Names that stand for a file of /proc/sys (`fs/proc/proc_sysctl.c`, `sysctl_aliases`).
const SYSCTL: [&str; 5] = [
    "hardlockup_all_cpu_backtrace",
    "hung_task_panic",
    "numa_zonelist_order",
    "softlockup_all_cpu_backtrace",
    "softlockup_panic",
];

impl Kernel {
    /// Unpacks an image (Documentation/arch/x86/boot.rst: `setup_sects`, `payload_offset` and `payload_length`).
    fn of_image(image: &[u8]) -> Option<Self> {
        if !FileKind::Kernel.is_kind_of(image) {
            return None;
        }
        let sectors = usize::from((*image.get(0x1f1)?).max(1)) + 1;
        let half = |place: usize| Some(u32::from_le_bytes(image.get(place..place + 4)?.try_into().ok()?) as usize);
        let begin = sectors.checked_mul(512)?.checked_add(half(0x248)?)?;
        let packed = image.get(begin..begin.checked_add(half(0x24c)?)?)?;
        let compression = SegmentCompression::as_the_kernel(packed)?;
        // The length of the kernel is behind it, except in gzip, which has that itself (scripts/Makefile.lib, size_append).
        let length = packed.len().saturating_sub(if compression == SegmentCompression::Gzip { 0 } else { 4 });
        let mut bytes = Vec::new();
        compression.unpack(packed.get(..length)?).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
        let segments = segments(&bytes)?;
        Some(Self { bytes, segments })
    }

    /// The place of an address in the file.
    fn place(&self, address: u64) -> Option<usize> {
        self.segments.iter().find_map(|Segment { address: begin, file }| {
            let offset = usize::try_from(address.checked_sub(*begin)?).ok()?;
            (offset < file.len()).then(|| file.start + offset)
        })
    }

    /// The address of a place in the file.
    fn address(&self, place: usize) -> Option<u64> {
        let segment = self.segments.iter().find(|segment| segment.file.contains(&place))?;
        segment.address.checked_add((place - segment.file.start) as u64)
    }

    /// The addresses at which the file has a text between zeros.
    fn text(&self, text: &str) -> impl Iterator<Item = u64> {
        let text = [&[0], text.as_bytes(), &[0]].concat();
        let places = 0..self.bytes.len();
        places
            .filter(move |place| self.bytes.get(*place..).is_some_and(|rest| rest.starts_with(&text)))
            .filter_map(|place| self.address(place + 1))
    }

    /// The name at an address.
    fn name(&self, address: u64) -> Option<String> {
        let text = self.bytes.get(self.place(address)?..)?;
        let text = text.get(..text.iter().take(128).position(|byte| *byte == 0)?)?;
        let is_name = !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        is_name.then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// The names of the table that has an entry with this name: each entry has `size` bytes and begins with the address of its name. The
    /// table ends where an entry is no longer valid.
    fn table(&self, name: &str, size: usize, is_valid: impl Fn(&[u8]) -> Option<bool>) -> HashSet<String> {
        let entry = |place: usize| {
            let entry = self.bytes.get(place..place.checked_add(size)?)?;
            is_valid(entry).filter(|valid| *valid)?;
            self.name(number(entry, 0)?)
        };
        let tables = self.text(name).flat_map(|address| {
            let words = self.bytes.chunks_exact(8).enumerate();
            words.filter(move |(_, word)| *word == address.to_le_bytes()).map(|(index, _)| {
                let before =
                    successors((index * 8).checked_sub(size), |place| place.checked_sub(size)).map_while(entry);
                before.chain((index * 8..).step_by(size).map_while(entry)).collect::<HashSet<_>>()
            })
        });
        tables.max_by_key(HashSet::len).unwrap_or_default()
    }
}

/// The loaded parts of an ELF file.
fn segments(bytes: &[u8]) -> Option<Vec<Segment>> {
    let file = ElfFile64::<LittleEndian>::parse(bytes).ok()?;
    let endian = file.endian();
    let loaded = file.elf_program_headers().iter().filter(|header| header.p_type(endian) == elf::PT_LOAD);
    let segments = loaded.map(|header| {
        let (begin, length) = header.file_range(endian);
        let begin = usize::try_from(begin).ok()?;
        let end = begin.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= bytes.len())?;
        Some(Segment { address: header.p_vaddr(endian), file: begin..end })
    });
    segments.collect()
}

/// A number of eight bytes.
fn number(bytes: &[u8], place: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(place..place.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_4_words_are_known_as_the_kernel_knows_them() {
        let kernel = KernelParameters {
            setup: ["init=", "quiet", "ro"].map(Into::into).into(),
            names: ["panic_on_warn".into()].into(),
            leaves_out_loaders: true,
        };
        for word in [
            "init=/x",
            "quiet",
            "quiet=1",
            "ro",
            "panic-on-warn=1",
            "panic_on_warn",
            "BOOT_IMAGE=x",
            "kexec",
            "hung_task_panic=1",
        ] {
            assert!(kernel.has(word), "{word}");
        }
        for word in ["init", "quieter", "rotten", "panic_on", "splash", "kexe", ""] {
            assert!(!kernel.has(word), "{word}");
        }
        let common = KernelParameters::common();
        for (word, known) in
            [("quiet", true), ("console=ttyS0", true), ("panic=-1", true), ("BOOT_IMAGE=x", false), ("splash", false)]
        {
            assert_eq!(common.has(word), known, "{word}");
        }
    }

    #[test]
    fn c_4_images_without_tables() {
        let mut image = vec![0; 0x1000];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        for (place, number) in [(0, 0), (0x248, 0), (0x248, u32::MAX), (0x24c, u32::MAX), (0x24c, 0x100)] {
            image[place..place + 4].copy_from_slice(&number.to_le_bytes());
            assert!(KernelParameters::of_image(&image).is_none());
        }
        for image in [&b""[..], b"MZ", b"\x7fELF"] {
            assert!(KernelParameters::of_image(image).is_none());
            assert!(segments(image).is_none());
        }
    }
}
