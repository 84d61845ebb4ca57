use super::*;
use crate::formats::cpio::{Archive, Node, Tree as Files};
use crate::formats::newc::{MemberKind, TRAILER};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::process::{Command, Stdio};

/// What a tool makes of an input.
fn piped(command: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("sh");
    let mut child = child.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command}");
    output.stdout
}

fn file(path: &str, contents: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut members = Archive::new(&mut archive);
    members.file(path, 0o644, None, contents.len() as u64, contents).unwrap();
    members.finish().unwrap();
    archive
}

/// Paths and contents of the members, in order.
type Members = Vec<(String, Vec<u8>)>;

fn members(ramdisk: &[u8]) -> Result<(Vec<Segment>, Members)> {
    let mut members = Vec::new();
    let contents = read(Cursor::new(ramdisk), &mut |member, contents| {
        let mut bytes = Vec::new();
        contents.read_to_end(&mut bytes)?;
        if let Some(offset) = member.offset {
            assert_eq!(ramdisk[usize::try_from(offset)?..][..bytes.len()], bytes);
        }
        members.push((member.path.display().to_string(), bytes));
        Ok(())
    })?;
    match contents.stop {
        Some(stop) => anyhow::bail!("{stop}"),
        None => Ok((contents.segments, members)),
    }
}

#[test]
fn every_compression_between_two_archives() {
    let large = vec![7; 100_000];
    let (first, middle, last) = (file("a", b"1"), file("b", &large), file("c", b"3"));
    for (tool, compression) in [
        ("cat", SegmentCompression::None),
        ("gzip", SegmentCompression::Gzip),
        ("bzip2", SegmentCompression::Bzip2),
        ("xz --check=crc32 --lzma2=dict=1MiB", SegmentCompression::Xz),
        ("xz --format=lzma", SegmentCompression::Lzma),
        ("zstd -19", SegmentCompression::Zstd),
        ("lz4 -l", SegmentCompression::Lz4),
    ] {
        let packed = piped(tool, &middle);
        // Zeros end a frame of lz4, which has no end of its own; the others do without.
        for zeros in [4, 8, 12, 70_000] {
            let mut ramdisk = [&first[..], &packed, &vec![0; zeros]].concat();
            ramdisk.resize(ramdisk.len().next_multiple_of(4), 0);
            ramdisk.extend(&last);
            let (segments, members) = members(&ramdisk).unwrap();
            let names: Vec<_> = members.iter().map(|(path, _)| path.as_str()).collect();
            assert_eq!(names, ["a", "b", "c"], "{tool}");
            assert_eq!(members[1].1, large);
            assert_eq!(segments[1].compression, compression);
            assert_eq!((segments[1].offset, segments[1].members), (first.len() as u64, 1));
            let length = packed.len() as u64 + if compression == SegmentCompression::Lz4 { 4 } else { 0 };
            assert_eq!(segments[1].packed, length, "{tool}");
            assert_eq!(segments[1].unpacked, middle.len() as u64);
        }
    }
}

#[test]
fn archives_in_one_stream() {
    let zeros = [0; 512];
    let packed = piped("gzip", &[&file("a", b"1")[..], &zeros, &file("b", b"2"), &zeros].concat());
    let (segments, members) = members(&packed).unwrap();
    assert_eq!((segments.len(), segments[0].members, members.len()), (1, 2, 2));
    // Another stream is another segment, with zeros between or without.
    assert_eq!(super::tests::members(&[&packed[..], &packed].concat()).unwrap().0.len(), 2);
}

#[test]
fn what_gnu_cpio_writes() {
    let directory = tempfile::tempdir().unwrap();
    let script = "mkdir d && echo x > d/one && ln d/one d/two && ln -s one d/link && mkfifo pipe && \
                  find . -mindepth 1 | sort | cpio --create --format=newc --quiet";
    let output = Command::new("sh").args(["-euc", script]).current_dir(&directory).output().unwrap();
    let mut lines = Vec::new();
    let segments = read(Cursor::new(output.stdout), &mut |member, _| {
        lines.push(format!("{} {} {}", &member.mode_letters()[..1], member.links, member.path.display()));
        assert_eq!(member.target.as_deref(), (member.kind == MemberKind::Symlink).then_some(Path::new("one")));
        Ok(())
    });
    assert_eq!(lines, ["d 2 d", "l 1 d/link", "- 2 d/one", "- 2 d/two", "p 1 pipe"]);
    assert_eq!(segments.unwrap().segments[0].members, 5);
}

#[test]
fn what_the_kernel_would_not_unpack() {
    let archive = file("a", b"12345");
    let zstd = piped("zstd", &archive);
    let bad = |bytes: &[u8], expected: &str| {
        let error = format!("{:#}", members(bytes).expect_err(expected));
        assert!(error.contains(expected), "no {expected:?} in: {error}");
    };
    let invalid =
        "at offset 0, the kernel stops unpacking the ramdisk: \"invalid magic at start of compressed archive\"";
    bad(b"#!/bin/sh\n", invalid);
    bad(b"#!/bin/sh\n", "found \"#!/bin\"; is this file a ramdisk?");
    bad(&[&archive[..], b"junk"].concat(), "was something appended");
    bad(&[b"\0", &archive[..]].concat(), "at offset 1, the kernel stops");
    bad(&[b"\0", &archive[..]].concat(), "put 3 zero bytes before it");
    bad(&[&archive[..], b"\0", &zstd].concat(), "\"broken padding\"; put 3 zero bytes before it");
    bad(&archive[..50], "the archive ends within a header");
    bad(&archive[..111], "ends within a name");
    bad(&archive[..114], "at offset 0, the kernel stops unpacking the ramdisk: the archive ends within the contents");
    bad(&zstd[..zstd.len() - 1], "the kernel stops");
    bad(&piped("gzip", &[b'x'; 110]), "\"no cpio magic\": expected a cpio header, found");
    bad(&piped("gzip", &archive[..archive.len() - 1]), "\"junk at the end of compressed archive\"");
    bad(&piped("lz4", &archive), "lz4 -l");
    bad(&piped("xz", &archive), "its check is CRC64, and the kernel knows CRC32; pack it with xz --check=crc32");
    bad(&piped("xz --check=crc32 --delta=dist=4 --lzma2", &archive), "it has the filter delta");
    for format in ["odc", "bin"] {
        let archive = piped(&format!("cpio --create --quiet --format={format}"), b"");
        bad(&archive, "pack it with cpio -o -H newc");
    }
    // Bytes behind the end of a stream are a segment of their own.
    bad(&[&piped("gzip", &archive)[..], b"junk"].concat(), "was something appended");
    bad(&[&piped("lz4 -l", &archive)[..], b"x\0"].concat(), "the kernel stops");
}

#[test]
fn an_archive_needs_no_trailer() {
    let archive = file("a", b"12345678");
    assert_eq!(members(&archive[..112 + 8]).unwrap().1, [("a".into(), b"12345678".to_vec())]);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        files in prop::collection::btree_map("[a-z]{1,5}(/[A-Z]{1,3}){0,2}", prop::collection::vec(any::<u8>(), 0..50), 0..9),
        compressed in any::<bool>(),
    ) {
        let mut tree = Files::default();
        for (path, contents) in &files {
            tree.add(path, Node::File { mode: 0o644, contents: contents.clone() });
        }
        let mut archive = Vec::new();
        tree.write(&mut archive).unwrap();
        let ramdisk = if compressed { zstd::encode_all(archive.as_slice(), 1).unwrap() } else { archive };
        let mut read_back = BTreeMap::new();
        read(Cursor::new(ramdisk), &mut |member, contents| {
            let mut bytes = Vec::new();
            contents.read_to_end(&mut bytes)?;
            if member.kind == MemberKind::File {
                read_back.insert(member.path.to_str().unwrap().to_owned(), bytes);
            }
            Ok(())
        }).unwrap();
        prop_assert_eq!(read_back, files);
    }

    #[test]
    fn a_damaged_ramdisk_is_no_panic(place in 0..400_usize, byte in any::<u8>(), cut in 0..400_usize) {
        let mut ramdisk = [file("a", b"12345"), zstd::encode_all(file("b", b"678").as_slice(), 1).unwrap()].concat();
        let place = place % ramdisk.len();
        ramdisk[place] = byte;
        ramdisk.truncate(cut);
        drop(members(&ramdisk));
    }
}

/// A member with any name, mode, number of links and contents.
fn raw(name: &str, mode: u32, links: u32, contents: &[u8]) -> Vec<u8> {
    raw_with("070701", name, mode, links, contents, 0)
}

fn raw_with(magic: &str, name: &str, mode: u32, links: u32, contents: &[u8], checksum: u32) -> Vec<u8> {
    let (bytes, length) = (contents.len(), name.len() + 1);
    let numbers =
        [7, mode, 0, 0, links, 0, u32::try_from(bytes).unwrap(), 8, 1, 9, 9, u32::try_from(length).unwrap(), checksum];
    let mut member = magic.as_bytes().to_vec();
    member.extend(numbers.iter().flat_map(|number| format!("{number:08x}").into_bytes()));
    for part in [&[name.as_bytes(), b"\0"].concat()[..], contents] {
        member.extend(part);
        member.resize(member.len().next_multiple_of(4), 0);
    }
    member
}

const FILE: u32 = 0o100_644;
const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;

/// The places of the files that the kernel makes, in order, and the warnings.
fn made(ramdisk: &[u8]) -> (Vec<String>, Vec<String>) {
    let mut places = Vec::new();
    let contents = read(Cursor::new(ramdisk), &mut |member, _| {
        places.extend(member.fate.place.as_ref().map(|place| place.display().to_string()));
        Ok(())
    })
    .unwrap();
    assert_eq!(contents.stop, None);
    (places, contents.warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn c_7_archives_without_a_trailer_and_with_zeros_between_them_are_unpacked() {
    // As iPXE leaves them in memory: a header of its own, the file, and zeros up to a multiple of four or a page.
    let zeros = vec![0; 4096];
    let ramdisk =
        [&raw("a", FILE, 1, b"1")[..], &zeros, &raw("b", FILE, 1, b"22"), &[0; 8], &raw("c", FILE, 1, b"")].concat();
    assert_eq!(made(&ramdisk), (["/a", "/b", "/c"].map(String::from).to_vec(), vec![]));
    let (segments, _) = members(&ramdisk).unwrap();
    assert_eq!(segments.len(), 3);
    assert_eq!(made(&piped("gzip", &ramdisk)).0, ["/a", "/b", "/c"]);
}

#[test]
fn c_7_a_member_that_the_kernel_skips_hides_no_other() {
    let long = "n".repeat(5200);
    let ramdisk = [
        raw("a", FILE, 1, b"1"),
        raw(&long, FILE, 1, b"evil"),
        raw("l", SYMLINK, 1, &vec![b't'; 5000]),
        raw("d", DIRECTORY, 1, b"contents"),
        raw(&"n".repeat(256), FILE, 1, b""),
        raw("z", FILE, 1, b"2"),
    ]
    .concat();
    for ramdisk in [ramdisk.clone(), piped("gzip", &ramdisk)] {
        let (places, warnings) = made(&ramdisk);
        assert_eq!(places, ["/a", "/z"]);
        let words = [
            "its name has 5201 bytes and the kernel accepts 1 to 4096",
            "its target has 5000 bytes and the kernel accepts at most 4096",
            "makes no d: it is no regular file and has 8 bytes",
            "a part of its name has 256 bytes",
        ];
        for (warning, words) in warnings.iter().zip(words) {
            assert!(warning.contains(words), "{warning}");
        }
        assert_eq!(warnings.len(), words.len());
    }
}

#[test]
fn c_7_files_before_their_directories_are_not_made() {
    let ramdisk = [
        raw("d/e/f", FILE, 1, b"1"),
        raw("d/e", DIRECTORY, 1, b""),
        raw("d", DIRECTORY, 1, b""),
        raw("dev/null", FILE, 1, b""),
        raw("d/g", FILE, 1, b""),
    ]
    .concat();
    let (places, warnings) = made(&ramdisk);
    assert_eq!(places, ["/d", "/dev/null", "/d/g"]);
    assert_eq!(
        warnings,
        [
            "at offset 0: the kernel makes no d/e/f: its directory /d does not exist",
            "at offset 120: the kernel makes no d/e: its directory /d does not exist",
        ]
    );
}

#[test]
fn c_7_a_segment_that_firn_cannot_unpack_hides_no_other() {
    let (first, last) = (file("a", b"1"), file("d/b", b"2"));
    // lzo of the kernel's kind needs lzop; its first bytes are enough.
    let lzo = [&b"\x89LZO\0\r\n\x1a\n"[..], &[0x55; 999]].concat();
    for next in [last.clone(), piped("zstd", &last), piped("xz --check=crc32", &last), piped("gzip", &last)] {
        let mut ramdisk = [&first[..], &lzo].concat();
        ramdisk.resize(ramdisk.len().next_multiple_of(4), 0);
        let offset = ramdisk.len();
        ramdisk.extend(&next);
        let (places, warnings) = made(&ramdisk);
        // Its directory may be in the segment that firn cannot unpack.
        assert_eq!(places, ["/a", "/d/b"]);
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.contains("compressed with lzo, which firn does not unpack"), "{warning}");
        assert!(warning.contains(&format!("goes on at offset {offset}")), "{warning}");
    }
    for bytes in lzo.len() - 4..lzo.len() {
        let ramdisk = [&first[..], &lzo[..bytes]].concat();
        let (places, warnings) = made(&ramdisk);
        assert_eq!(places, ["/a"]);
        assert!(warnings[0].contains("finds no other segment after it"), "{warnings:?}");
        let segments = read(Cursor::new(&ramdisk), &mut |_, _| Ok(())).unwrap().segments;
        assert_eq!(segments.last().map(|last| last.offset + last.packed), Some(ramdisk.len() as u64));
    }
}

#[test]
fn c_3_absolute_names_and_dots_begin_at_the_root() {
    let ramdisk = [
        raw("/etc", DIRECTORY, 1, b""),
        raw("//etc//./x", FILE, 1, b""),
        raw("../../etc/y", FILE, 1, b""),
        raw("etc/../z", FILE, 1, b""),
        raw("l", SYMLINK, 1, b"/etc"),
        raw("l/through", FILE, 1, b""),
        raw("up", SYMLINK, 1, b"../../.."),
        raw("up/top", FILE, 1, b""),
        raw("loop", SYMLINK, 1, b"loop"),
        raw("loop/x", FILE, 1, b""),
        raw(".", FILE, 1, b""),
        raw("file/", FILE, 1, b""),
        raw(".", DIRECTORY, 1, b""),
        raw("etc/x/y", FILE, 1, b""),
    ]
    .concat();
    let (places, warnings) = made(&ramdisk);
    assert_eq!(places, ["/etc", "/etc/x", "/etc/y", "/z", "/l", "/etc/through", "/up", "/top", "/loop", "/"]);
    let words = ["more than 40 symbolic links", "a directory with files", "ends with a slash", "/etc/x is in the way"];
    assert_eq!(warnings.len(), words.len(), "{warnings:?}");
    assert!(warnings.iter().zip(words).all(|(warning, words)| warning.contains(words)), "{warnings:?}");
}

#[test]
fn files_that_replace_others() {
    let (places, warnings) = made(
        &[
            raw("a", DIRECTORY, 1, b""),
            raw("a", FILE, 1, b"over an empty directory"),
            raw("b", DIRECTORY, 1, b""),
            raw("b/c", FILE, 1, b""),
            raw("b", SYMLINK, 1, b"a"),
            raw("a", 0, 1, b""),
            raw("dev/console", 0o020_600, 1, b""),
            raw("s", SYMLINK, 1, b""),
        ]
        .concat(),
    );
    assert_eq!(places, ["/a", "/a", "/b", "/b/c", "/dev/console", "/s"]);
    let words = ["a directory with files is in its place", "removes the earlier /a", "stays 5, 1"];
    assert!(warnings.iter().zip(words).all(|(warning, words)| warning.contains(words)), "{warnings:?}");
    assert_eq!(warnings.len(), words.len());
}

#[test]
fn files_with_several_names() {
    let trailer = raw(TRAILER, 0, 1, b"");
    let contents = |ramdisk: &[u8], path: &str| {
        let mut contents = read(Cursor::new(ramdisk), &mut |_, _| Ok(())).unwrap();
        contents.tree.find(Path::new(path)).map(|entry| entry.contents)
    };
    // The last one has the contents of all.
    let linked = [raw("a", FILE, 2, b""), raw("b", FILE, 2, b"x")].concat();
    assert_eq!((contents(&linked, "a"), contents(&linked, "b")), (Some(1), Some(1)));
    let reversed = [raw("a", FILE, 2, b"x"), raw("b", FILE, 2, b"")].concat();
    assert_eq!((contents(&reversed, "a"), contents(&reversed, "b")), (Some(0), Some(0)));
    let apart = [raw("a", FILE, 2, b"x"), trailer, raw("b", FILE, 2, b"")].concat();
    assert_eq!((contents(&apart, "a"), contents(&apart, "b")), (Some(0), Some(1)));
    // The kernel removes the name that the file has, and then finds no file to link to.
    let same = [raw("a", FILE, 2, b"x"), raw("a", FILE, 2, b"y")].concat();
    assert_eq!(contents(&same, "a"), None);
    assert!(made(&same).1[0].contains("it is a link to a, which is gone"));
    // A link to a symbolic link: the contents go to its target.
    let through = [raw("a", FILE, 2, b""), raw("a", SYMLINK, 1, b"/t"), raw("b", FILE, 2, b"x")].concat();
    assert_eq!(made(&through).0, ["/a", "/a", "/t"]);
}

#[test]
fn checksums_are_compared() {
    let sum = b"12345".iter().map(|byte| u32::from(*byte)).sum();
    let archive = |checksum| [raw_with("070702", "a", FILE, 1, b"12345", checksum), raw("b", FILE, 1, b"")].concat();
    assert_eq!(made(&archive(sum)).0, ["/a", "/b"]);
    let contents = read(Cursor::new(archive(sum + 1)), &mut |_, _| Ok(())).unwrap();
    assert!(contents.stop.unwrap().reason.contains("\"bad data checksum\": that of a differs"));
}

#[test]
fn numbers_that_are_no_numbers() {
    let mut ramdisk = raw("a", FILE, 1, b"");
    ramdisk[6..14].copy_from_slice(b"no inode");
    let contents = read(Cursor::new(ramdisk), &mut |_, _| Ok(())).unwrap();
    assert!(contents.stop.unwrap().reason.contains("\"damaged header\": \"no inode\" in the header is no hex"));
}
