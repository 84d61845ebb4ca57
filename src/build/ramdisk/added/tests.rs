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

/// A small segment of firn, behind the files that a script makes in `segment` or before them.
fn with_firn(script: &str, prepend: bool) -> Result<()> {
    use crate::formats::cpio::{Node, Tree};
    let directory = directory(&format!("rm -r t; mkdir t; cd t; {script}; cd ..; newc > segment"));
    let segment = directory.path().join("segment");
    let (mut tree, mut archive) = (Tree::default(), Vec::new());
    tree.add("/init", Node::File { mode: 0o755, contents: b"firn-init".to_vec() });
    tree.add(PATH, Node::File { mode: 0o444, contents: b"{}".to_vec() });
    tree.add("/dev/console", Node::CharacterDevice { mode: 0o600, major: 5, minor: 1 });
    tree.add("/lib/modules/6.9/squashfs.ko", Node::File { mode: 0o444, contents: b"squashfs".to_vec() });
    tree.write(&mut archive)?;
    let mut segments = AddedSegments::default();
    if prepend {
        segments.add(&segment, Progress::Quiet)?;
    }
    segments.add_own(&archive)?;
    if !prepend {
        segments.add(&segment, Progress::Quiet)?;
    }
    segments.check_images(&[Image { path: "/nix-store.squashfs".into(), bytes: 0, sha256: String::new() }])
}

#[test]
fn c_6_a_segment_that_keeps_files_of_firn_from_being_made_is_refused() {
    let image = "mkdir nix-store.squashfs; echo 1 > nix-store.squashfs/x";
    for (script, prepend, words) in [
        ("mkdir init; echo 1 > init/x", true, "makes no /init of firn"),
        ("mkdir -p firn/plan.json; echo 1 > firn/plan.json/x", true, "makes no /firn/plan.json of firn"),
        (
            "mkdir -p lib/modules/6.9/squashfs.ko; echo 1 > lib/modules/6.9/squashfs.ko/x",
            true,
            "makes no /lib/modules/6.9/squashfs.ko of firn",
        ),
        ("mkdir firn; echo 1 > init; ln init firn/plan.json", true, "of firn: it becomes a link to another file"),
        ("mkdir dev; mknod dev/console c 1 3; mknod dev/console2 c 1 3", true, ""),
        (image, true, "makes no /nix-store.squashfs of firn"),
        (image, false, "makes no /nix-store.squashfs of firn"),
        ("mkdir -p init", false, "its /init takes the place of firn's, which is a regular file"),
        ("ln -s /nowhere init", false, "/init of firn is a symbolic link that leads to no file"),
        ("ln -s init init", false, "/init of firn is a symbolic link that leads to no file"),
        ("echo 1 > init; chmod 644 init", false, "/init takes the place of firn's and has the mode 0644"),
        ("mkdir firn; echo {} > firn/plan.json", false, "its /firn/plan.json takes the place of firn's"),
        ("mkdir firn; echo text > firn/plan.json", false, "its /firn/plan.json takes the place of firn's"),
        ("mkdir firn; ln -s /x firn/plan.json", false, "/firn/plan.json of firn is a symbolic link"),
        ("mkdir dev; echo > dev/console", false, "its /dev/console takes the place of firn's"),
    ] {
        match with_firn(script, prepend) {
            Ok(()) => assert_eq!(words, "", "{script}"),
            Err(error) => {
                let error = format!("{error:#}");
                assert!(!words.is_empty() && error.contains(words), "{script}: {error}");
                assert!(error.contains("leave ") && error.contains(" out"), "{script}: {error}");
            }
        }
    }
}

#[test]
fn c_6_a_segment_may_have_files_at_the_places_of_firn_that_the_kernel_replaces() {
    for (script, prepend) in [
        ("ln -s /x lib; mkdir x", true),
        ("ln -s /nowhere lib", true),
        ("echo 1 > firn", true),
        ("ln -s /nowhere init", true),
        ("mkdir init", true),
        ("echo 1 > nix-store.squashfs", false),
        ("ln -s /nowhere nix-store.squashfs", false),
        ("echo 1 > init; chmod 755 init", false),
        ("mkdir bin; echo 1 > bin/start; chmod 755 bin/start; ln -s bin/start init", false),
        ("mkdir -p lib/modules/6.9; echo 1 > lib/modules/6.9/squashfs.ko", false),
    ] {
        with_firn(script, prepend).unwrap_or_else(|error| panic!("{script}: {error:#}"));
    }
}
