//! The store image: a squashfs whose root is the store, as nixpkgs' `lib/make-squashfs.nix` makes it.

use crate::build::store::packing::Packing;
use crate::host::progress::Step;
use crate::host::tool;
use anyhow::Result;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;

/// Makes an image of files and directories, which are at its root by their names.
///
/// # Errors
///
/// No mksquashfs on this machine, or one that fails.
pub fn make(paths: &[&Path], image: &Path, packing: &Packing, step: &Step) -> Result<()> {
    let mut command = Command::new("mksquashfs");
    command.args(paths).arg(image);
    set_options(&mut command, packing);
    run(&mut command, step)
}

fn run(command: &mut Command, step: &Step) -> Result<()> {
    let line = |line: &str| {
        if let Some(bytes) = packed(line) {
            step.advance(bytes);
        }
    };
    tool::run(command, "install squashfs-tools (4.4 or newer)", line, |_| {})
}

fn set_options(command: &mut Command, packing: &Packing) {
    command
        // Hard links in the build machine's store (nix-store --optimise) are nobody's business.
        .arg("-no-hardlinks")
        // One path alone would otherwise be unpacked into the root.
        .arg("-keep-as-directory")
        .args(["-all-root", "-root-mode", "0755"])
        // Nix knows no extended attributes; a build machine's own, such as SELinux labels, do not belong into the image.
        .arg("-no-xattrs")
        // A file that cannot be read would otherwise be an empty one, and that a success.
        .arg("-exit-on-error")
        .args(["-b", &packing.block_size().to_string()])
        .args(["-processors", &std::thread::available_parallelism().map_or(1, NonZero::get).to_string()])
        .args(arguments(&packing.compression().to_string()))
        .args(["-info", "-no-progress"])
        // Nix gives every file the time 1; the image, its root and the registration get the same.
        .env("SOURCE_DATE_EPOCH", "1");
}

fn arguments(compression: &str) -> Vec<&str> {
    match compression {
        // -no-compression is the same from mksquashfs 4.6 on
        "none" => vec!["-noI", "-noId", "-noD", "-noF", "-noX"],
        words => ["-comp"].into_iter().chain(words.split_whitespace()).collect(),
    }
}

/// The size of the file that a line of `mksquashfs -info` reports as packed.
fn packed(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("file ")?.rsplit_once(", uncompressed size ")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::progress::Progress;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn compression_words() {
        for (words, arguments) in [
            ("zstd -Xcompression-level 19", &["-comp", "zstd", "-Xcompression-level", "19"][..]),
            ("lz4  -Xhc", &["-comp", "lz4", "-Xhc"]),
            ("gzip", &["-comp", "gzip"]),
            ("none", &["-noI", "-noId", "-noD", "-noF", "-noX"]),
        ] {
            assert_eq!(super::arguments(words), arguments, "{words:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_empty_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let file = directory.path().join("unreadable");
        fs::write(&file, "contents").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
        // Root reads everything.
        let root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut command = Command::new(if root { "setpriv" } else { "mksquashfs" });
        if root {
            command.args(["--reuid", "65534", "--clear-groups", "mksquashfs"]);
        }
        command.arg(&file).arg(directory.path().join("image"));
        set_options(&mut command, &Packing { compression: "gzip".parse().ok(), ..Packing::default() });
        let error = run(&mut command, &Progress::Quiet.step("", 0)).unwrap_err().to_string();
        assert!(error.contains("Failed to read file"), "{error}");
    }

    #[test]
    fn sizes_in_the_output_of_mksquashfs() {
        for (line, bytes) in [
            ("file /a/x, uncompressed size 30000000 bytes ", Some(30_000_000)),
            ("file /a/x, uncompressed size 12 bytes DUPLICATE", Some(12)),
            ("file /a, uncompressed size 1 bytes/x, uncompressed size 2 bytes ", Some(2)),
            ("directory /a inode 0x94", None),
            ("file /a/na", None),
            ("", None),
        ] {
            assert_eq!(packed(line), bytes, "{line:?}");
        }
    }
}
