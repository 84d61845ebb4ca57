use super::*;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

/// Adds the file `segment` that a script makes in a directory with the tree `t`, behind firn's own segment or before it.
fn added(script: &str, behind_firn: bool) -> Result<Vec<u8>> {
    let directory = directory(script);
    let mut segments = AddedSegments::default();
    if behind_firn {
        segments.add_own(&[])?;
    }
    let segment = segments.add(&directory.path().join("segment"), Progress::Quiet)?;
    let mut copied = Vec::new();
    segment.copy(&mut copied)?;
    assert_eq!(copied, fs::read(directory.path().join("segment"))?);
    Ok(copied)
}

fn directory(script: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let tree = "mkdir -p t/d; seq 9999 > t/d/file; newc() { (cd t && find . | sort | cpio -o -H newc --quiet); }";
    let output =
        Command::new("bash").args(["-euc", &format!("{tree}; {script}")]).current_dir(&directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    directory
}

#[test]
fn c_6_segments_that_the_kernel_takes_are_added() {
    for script in [
        "newc > segment",
        "(cd t && find . | sort | cpio -o -H crc --quiet) > segment",
        "newc | gzip > segment",
        "newc | tee a | gzip > segment; gzip < a >> segment",
        "newc | xz --check=crc32 --lzma2=dict=1MiB > segment",
        "newc | xz --check=none > segment",
        "newc | xz --check=crc32 --x86 --lzma2 --block-size=2000 > segment",
        "newc > a; xz --check=crc32 < a > segment; truncate -s %4 segment; head -c 8 /dev/zero >> segment; xz --check=none < a >> segment",
        "newc | xz --format=lzma > segment",
        // Side by side without padding: the kernel begins a compressed segment anywhere.
        "newc | bzip2 > segment; newc | bzip2 >> segment",
        "newc | lz4 -l > segment",
        "newc | zstd -19 > segment",
        "newc > a; head -c $(($(stat -c %s a) / 512 * 512 - 0)) a > segment",
        "mkdir -p kernel/x86/microcode; echo x > kernel/x86/microcode/GenuineIntel.bin
         echo kernel/x86/microcode/GenuineIntel.bin | cpio -o -H newc --quiet > segment",
    ] {
        for behind_firn in [true, false] {
            let result = added(script, behind_firn);
            assert!(result.is_ok(), "{script}: {:#}", result.unwrap_err());
        }
    }
}

#[test]
fn c_6_segments_that_the_kernel_does_not_take_are_refused() {
    let right = "-o -H newc";
    for (script, words) in [
        ("(cd t && find . | cpio -o -H odc --quiet) > segment", ["incorrect cpio method used", right]),
        ("(cd t && find . | cpio -o --quiet) > segment", ["old binary kind", right]),
        ("newc | xz > segment", ["its check is CRC64", "xz --check=crc32 --lzma2="]),
        ("newc | xz --check=sha256 > segment", ["its check is SHA-256", "xz --check=crc32 --lzma2="]),
        ("newc | xz --check=crc32 --x86 --delta --lzma2 > segment", ["more filters", "xz --check=crc32 --lzma2="]),
        ("newc | xz --check=crc32 --x86=start=4096 --lzma2 > segment", ["its filter x86", "xz --check=crc32 --lzma2="]),
        (
            "newc > a; newc | xz --check=crc32 > segment; xz --check=crc32 --delta --lzma2 < a >> segment",
            ["has the filter delta", "xz --check=crc32 --lzma2="],
        ),
        ("newc | head -c 700 > segment", ["the archive ends within the contents", right]),
        ("newc | head -c 700 | gzip > segment", ["junk at the end of compressed archive", right]),
        ("newc | gzip | head -c 700 > segment", ["the kernel stops", right]),
        ("newc | lz4 > segment", ["invalid magic", "the kernel knows the legacy kind only: lz4 -l"]),
        ("printf '\\211LZO\\0\\r\\n\\032\\n' > segment", ["compressed with lzo", "compress it with zstd or gzip"]),
        ("head -c 9000000 /dev/zero | zstd --long=28 > segment", ["decompressor failed", right]),
        ("newc | gzip > segment; echo garbage >> segment", ["invalid magic", right]),
        ("newc > segment; echo garbage >> segment", ["invalid magic", right]),
        (": > segment", ["it is empty", right]),
        ("head -c 4096 /dev/zero > segment", ["it is empty or has only zeros", right]),
        ("mkdir segment", ["segment is a directory", "give a ramdisk"]),
        ("mkfifo segment", ["segment is no regular file", "copy its contents into a file"]),
        ("cp /bin/sh segment", ["invalid magic", right]),
        (
            "(cd t && find . -depth | cpio -o -H newc --quiet) > segment",
            ["its directory /d does not exist", "before its files"],
        ),
        ("(cd t && find . -depth | cpio -o -H newc --quiet) | zstd > segment", ["does not exist", "before its files"]),
        ("tar c t > segment", ["invalid magic", right]),
    ] {
        for behind_firn in [true, false] {
            let error = format!("{:#}", added(script, behind_firn).expect_err(script));
            for words in words {
                assert!(error.contains(words), "{script}: no {words:?} in: {error}");
            }
        }
    }
}

#[test]
fn c_6_a_directory_of_an_earlier_segment_is_enough() {
    let directory = directory(
        "(cd t && echo ./d | cpio -o -H newc --quiet) > first; (cd t && echo ./d/file | cpio -o -H newc --quiet) > second",
    );
    let path = |name: &str| directory.path().join(name);
    let mut segments = AddedSegments::default();
    segments.add(&path("first"), Progress::Quiet).unwrap();
    segments.add(&path("second"), Progress::Quiet).unwrap();
    let error = AddedSegments::default().add(&path("second"), Progress::Quiet).unwrap_err().to_string();
    assert!(error.contains("its directory /d does not exist"), "{error}");
}

#[test]
fn c_6_a_segment_that_changes_while_it_is_packed_is_refused() {
    let directory = directory("newc > segment");
    let path = directory.path().join("segment");
    let segment = AddedSegments::default().add(&path, Progress::Quiet).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = segment.copy(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("it changed while it was packed"), "{error}");
}
