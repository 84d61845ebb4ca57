//! The settings of a stream of xz, as the kernel's decoder takes them (`lib/xz/xz_dec_stream.c` and `xz_dec_bcj.c` of Linux 6.1; the file
//! format is described in <https://tukaani.org/xz/xz-file-format.txt>).
//!
//! Only the headers are read: of the stream, of each block, and of each chunk of LZMA2, which tell where the next block begins.

use std::io::{self, Read};

/// The filters for programs that every kernel from 6.1 on has, if it is configured with them: x86, powerpc, arm, armthumb, sparc. ia64
/// went with Linux 6.7; arm64 and riscv came with 6.11.
const PROGRAM_FILTERS: [u8; 5] = [4, 5, 7, 8, 9];

/// The filter that packs.
const LZMA2: u8 = 0x21;

/// The largest dictionary that the kernel takes, as the filter writes it: 3 GiB.
const LARGEST_DICTIONARY: u8 = 39;

/// Settings that the kernel refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The number of bytes that the kernel unpacks before it sees the settings.
    pub unpacked: u64,
    /// The settings, and the next step, a part of a sentence.
    pub reason: String,
}

/// The end of reading: bytes that are not those of the format, or settings that the kernel refuses.
enum End {
    Damaged,
    Refused(String),
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Damaged } else { Self::Failed(error) }
    }
}

/// The settings of a stream that the kernel refuses, though other programs unpack it. None, too, for a damaged stream: a decoder finds
/// the damage.
///
/// # Errors
///
/// Those of reading.
pub fn refusal(stream: &mut impl Read) -> io::Result<Option<Refusal>> {
    let mut unpacked = 0;
    match blocks(stream, &mut unpacked) {
        Ok(()) | Err(End::Damaged) => Ok(None),
        Err(End::Failed(error)) => Err(error),
        Err(End::Refused(settings)) => Ok(Some(Refusal {
            unpacked,
            reason: format!(
                "\"Input was encoded with settings that are not supported by this XZ decoder\": {settings}; pack it with \
                 xz --check=crc32 --lzma2=dict=1MiB"
            ),
        })),
    }
}

/// Reads the stream up to its index, and counts the unpacked bytes.
fn blocks(stream: &mut impl Read, unpacked: &mut u64) -> Result<(), End> {
    let mut header = [0; 12];
    stream.read_exact(&mut header)?;
    let check = match header {
        [.., 0, 0, _, _, _, _] => 0,
        [.., 0, 1, _, _, _, _] => 4,
        [.., 0, 4, _, _, _, _] => return Err(refused("its check is CRC64, and the kernel knows CRC32")),
        [.., 0, 10, _, _, _, _] => return Err(refused("its check is SHA-256, and the kernel knows CRC32")),
        _ => return Err(refused("its check is of an unknown kind, and the kernel knows CRC32")),
    };
    loop {
        let words = byte(stream)?;
        if words == 0 {
            return Ok(());
        }
        let mut header = vec![0; usize::from(words) * 4 + 3];
        stream.read_exact(&mut header)?;
        // Its CRC32 comes last.
        block_header(header.get(..header.len() - 4).unwrap_or_default())?;
        let packed = chunks(stream, unpacked)?;
        skip(stream, packed.wrapping_neg() % 4 + check)?;
    }
}

/// Reads the header of a block, without the byte with its size.
fn block_header(mut header: &[u8]) -> Result<(), End> {
    let header = &mut header;
    let flags = byte(header)?;
    if flags & 0b10 != 0 {
        return Err(refused("it has more filters than one for programs and LZMA2"));
    }
    if flags & 0x3e != 0 {
        return Err(refused("a block has flags of an unknown kind"));
    }
    for with_size in [0x40, 0x80] {
        if flags & with_size != 0 {
            while byte(header)? & 0x80 != 0 {}
        }
    }
    if flags & 1 != 0 {
        let filter = byte(header)?;
        if !PROGRAM_FILTERS.contains(&filter) {
            let name = name_of(filter);
            let kernels = if [6, 10, 11].contains(&filter) {
                "not every kernel from 6.1 on has"
            } else {
                "the kernel does not have"
            };
            return Err(refused(&format!("it has the filter {name}, which {kernels}")));
        }
        if byte(header)? != 0 {
            let name = name_of(filter);
            return Err(refused(&format!("its filter {name} has an offset at which it starts")));
        }
    }
    let filter = byte(header)?;
    if filter != LZMA2 {
        return Err(refused(&format!("its last filter is {}, and the kernel knows LZMA2", name_of(filter))));
    }
    if byte(header)? != 1 || byte(header)? > LARGEST_DICTIONARY {
        return Err(refused("its dictionary is larger than 3 GiB"));
    }
    if header.iter().any(|byte| *byte != 0) {
        return Err(refused("a block has flags of an unknown kind"));
    }
    Ok(())
}

/// Skips the chunks of LZMA2 up to the end of a block. Returns their size, and counts the unpacked bytes.
fn chunks(stream: &mut impl Read, unpacked: &mut u64) -> Result<u64, End> {
    let mut packed = 0;
    loop {
        let control = byte(stream)?;
        let (header, size, more) = match control {
            0 => return Ok(packed + 1),
            1 | 2 => {
                let size = number(stream)? + 1;
                (3, size, size)
            }
            0x80.. => {
                let more = u64::from(control & 0x1f) << 16 | number(stream)?;
                let size = number(stream)? + 1;
                // New properties of LZMA are one byte more.
                let properties = u64::from(control >= 0xc0);
                (5, size + properties, more + 1)
            }
            _ => return Err(End::Damaged),
        };
        skip(stream, size)?;
        packed += header + size;
        *unpacked += more;
    }
}

fn refused(settings: &str) -> End {
    End::Refused(settings.into())
}

fn byte(stream: &mut impl Read) -> Result<u8, End> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// A number of two bytes, the higher first.
fn number(stream: &mut impl Read) -> Result<u64, End> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes).into())
}

fn skip(stream: &mut impl Read, bytes: u64) -> Result<(), End> {
    let skipped = io::copy(&mut stream.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(End::Damaged) }
}

/// The name of a filter in the program xz.
fn name_of(filter: u8) -> String {
    match filter {
        3 => "delta".into(),
        4 => "x86".into(),
        5 => "powerpc".into(),
        6 => "ia64".into(),
        7 => "arm".into(),
        8 => "armthumb".into(),
        9 => "sparc".into(),
        10 => "arm64".into(),
        11 => "riscv".into(),
        LZMA2 => "lzma2".into(),
        other => format!("number {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// The output of xz for 10,000 bytes. None if this xz does not have the option.
    fn packed(options: &str) -> Option<Vec<u8>> {
        let mut child = Command::new("xz")
            .args(options.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input: Vec<u8> = (0..10_000_u32).flat_map(|number| (number % 251 * number % 255).to_le_bytes()).collect();
        // An xz that refuses its options is gone by now.
        drop(child.stdin.take().unwrap().write_all(&input));
        let output = child.wait_with_output().unwrap();
        output.status.success().then_some(output.stdout)
    }

    #[test]
    fn c_6_settings_of_xz_that_the_kernel_does_not_have() {
        for (options, expected) in [
            ("--check=crc32", None),
            ("--check=none -9e", None),
            ("--check=crc32 --lzma2=dict=1MiB", None),
            ("--check=crc32 --x86 --lzma2", None),
            ("--check=crc32 -T2 --block-size=2000 --armthumb --lzma2", None),
            ("--check=crc32 --block-size=2000", None),
            ("--check=crc64", Some("its check is CRC64")),
            ("--check=sha256", Some("its check is SHA-256")),
            ("--check=crc32 --delta --lzma2", Some("it has the filter delta")),
            ("--check=crc32 -T2 --block-size=200 --delta --lzma2", Some("it has the filter delta")),
            ("--check=crc32 --x86 --delta --lzma2", Some("more filters")),
            ("--check=crc32 --x86 --arm --lzma2", Some("more filters")),
            ("--check=crc32 --x86 --arm --delta --lzma2", Some("more filters")),
            ("--check=crc32 --x86=start=4096 --lzma2", Some("its filter x86 has an offset")),
            ("--check=crc32 --ia64 --lzma2", Some("it has the filter ia64")),
            ("--check=crc32 --arm64 --lzma2", Some("it has the filter arm64")),
            ("--check=crc32 --riscv --lzma2", Some("it has the filter riscv")),
        ] {
            let Some(bytes) = packed(options) else {
                assert!(options.contains("arm64") || options.contains("riscv"), "{options}");
                continue;
            };
            let found = refusal(&mut bytes.as_slice()).unwrap();
            let reason = found.map(|Refusal { unpacked, reason }| {
                assert_eq!(unpacked, 0, "{options}");
                reason
            });
            match expected {
                None => assert_eq!(reason, None, "{options}"),
                Some(words) => {
                    let reason = reason.expect(options);
                    assert!(reason.contains(words) && reason.ends_with("--check=crc32 --lzma2=dict=1MiB"), "{reason}");
                }
            }
        }
    }

    #[test]
    fn c_6_the_header_of_the_second_block_counts() {
        let [good, bad] =
            ["--check=none --block-size=40000", "--check=none --delta --lzma2"].map(|options| packed(options).unwrap());
        // A block from one stream behind that of the other: a header of 12 bytes, the block, and the index, which begins with a zero.
        let index = |bytes: &[u8]| {
            let footer = bytes.len() - 12;
            let size = (u32::from_le_bytes(bytes[footer + 4..][..4].try_into().unwrap()) + 1) * 4;
            footer - size as usize
        };
        let both = [&good[..index(&good)], &bad[12..]].concat();
        let Refusal { unpacked, reason } = refusal(&mut both.as_slice()).unwrap().unwrap();
        assert!(unpacked == 40_000 && reason.contains("it has the filter delta"), "{unpacked} {reason}");
        // Damage is for the decoder.
        for cut in [0, 5, 11, 12, 13, 20, 40, good.len() / 2] {
            assert_eq!(refusal(&mut &good[..cut]).unwrap(), None, "{cut}");
        }
    }
}
