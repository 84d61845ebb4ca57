//! A store image in the format squashfs, made by mksquashfs like nixpkgs' `lib/make-squashfs.nix` makes it.

use crate::build::store::packing::Packing;
use crate::host::progress::Step;
use crate::host::tool;
use anyhow::Result;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;

/// The next step without mksquashfs.
const ADVICE: &str = "install squashfs-tools (4.4 or newer)";

/// The most bytes of paths in one command. Linux takes a quarter of the limit of the stack, which is 8 MiB nearly everywhere (`man 2
/// execve`).
const COMMAND_BYTES: usize = 3 << 19;

/// Makes an image of files and directories, which lie at its root under their names. If there are too many for one command, the next
/// command adds the rest.
///
/// # Errors
///
/// No mksquashfs on this machine, or mksquashfs fails.
pub fn make(paths: &[&Path], image: &Path, packing: &Packing, step: &Step) -> Result<()> {
    make_in_parts(paths, COMMAND_BYTES, image, packing, step)
}

fn make_in_parts(paths: &[&Path], most: usize, image: &Path, packing: &Packing, step: &Step) -> Result<()> {
    // An argument needs a pointer and a NUL, too.
    let longest = paths.iter().map(|path| path.as_os_str().len() + size_of::<usize>() + 1).max().unwrap_or(1);
    for paths in paths.chunks((most / longest).max(1)) {
        let mut command = Command::new("mksquashfs");
        command.args(paths).arg(image);
        set_options(&mut command, packing);
        run(&mut command, step)?;
    }
    Ok(())
}

fn run(command: &mut Command, step: &Step) -> Result<()> {
    let line = |line: &str| {
        if let Some(bytes) = packed_bytes(line) {
            step.advance(bytes);
        }
    };
    tool::run(command, ADVICE, line, |_| {})
}

/// The version of mksquashfs.
///
/// # Errors
///
/// No mksquashfs on this machine.
pub fn version() -> Result<String> {
    tool::version(Command::new("mksquashfs").arg("-version"), ADVICE)
}

fn set_options(command: &mut Command, packing: &Packing) {
    command
        .args(options(packing))
        .args(["-processors", &std::thread::available_parallelism().map_or(1, NonZero::get).to_string()])
        .args(["-info", "-no-progress"])
        // Of an image to which it adds paths it would copy a part into the home directory.
        .arg("-no-recovery")
        // Nix gives every file the time 1; the image, its root and the registration get the same time.
        .env("SOURCE_DATE_EPOCH", "1");
}

/// The options that decide the bytes of an image.
#[must_use]
pub fn options(packing: &Packing) -> Vec<String> {
    let (block_size, compression) = (packing.block_size().to_string(), packing.compression().to_string());
    let mut options = vec![
        // Hard links in the store of the build machine (nix-store --optimise) are not part of the system.
        "-no-hardlinks",
        // Without this the contents of a single directory would lie at the root.
        "-keep-as-directory",
        "-all-root",
        "-root-mode",
        "0755",
        // Nix stores no extended attributes; those of the build machine, such as SELinux labels, do not belong into the image.
        "-no-xattrs",
        // Without this mksquashfs packs an unreadable file as an empty one, and succeeds.
        "-exit-on-error",
        "-b",
        &block_size,
    ];
    options.extend(arguments(&compression));
    options.into_iter().map(Into::into).collect()
}

fn arguments(compression: &str) -> Vec<&str> {
    match compression {
        // mksquashfs 4.6 and newer have one option for these: -no-compression
        "none" => vec!["-noI", "-noId", "-noD", "-noF", "-noX"],
        options => ["-comp"].into_iter().chain(options.split_whitespace()).collect(),
    }
}

/// The size of the file that a line of `mksquashfs -info` reports as packed.
fn packed_bytes(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("file ")?.rsplit_once(", uncompressed size ")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::store_image;
    use crate::host::progress::Progress;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn compression_options() {
        for (options, arguments) in [
            ("zstd -Xcompression-level 19", &["-comp", "zstd", "-Xcompression-level", "19"][..]),
            ("lz4  -Xhc", &["-comp", "lz4", "-Xhc"]),
            ("gzip", &["-comp", "gzip"]),
            ("none", &["-noI", "-noId", "-noD", "-noF", "-noX"]),
        ] {
            assert_eq!(super::arguments(options), arguments, "{options:?}");
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
    fn b_11_paths_that_are_too_many_for_one_command() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for number in 0..50 {
            fs::create_dir(path(&format!("{number}"))).unwrap();
            fs::write(path(&format!("{number}/file")), format!("{number}").repeat(1000)).unwrap();
        }
        let paths: Vec<_> = (0..50).map(|number| path(&format!("{number}"))).collect();
        let paths: Vec<_> = paths.iter().map(std::path::PathBuf::as_path).collect();
        let packing = Packing { compression: "gzip".parse().ok(), ..Packing::default() };
        let make = |name: &str, most: usize| {
            make_in_parts(&paths, most, &path(name), &packing, &Progress::Quiet.step("", 0)).unwrap();
            let output = Command::new("unsquashfs").args(["-d", "", "-lln"]).arg(path(name)).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            (fs::read(path(name)).unwrap(), String::from_utf8(output.stdout).unwrap())
        };
        let (whole, list) = make("whole", COMMAND_BYTES);
        let (parts, list_of_parts) = make("parts", 500);
        assert_eq!(list.lines().count(), 101, "{list}");
        assert_eq!(list_of_parts, list);
        assert!(whole != parts && make("again", 500).0 == parts);
    }

    #[test]
    fn c_14_blocks_are_small_by_default_and_those_of_nixpkgs_on_request() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("a")).unwrap();
        fs::write(path("a/file"), vec![7; 3 << 20]).unwrap();
        let block_size = |packing: &Packing| {
            let image = path("image");
            make(&[&path("a")], &image, packing, &Progress::Quiet.step("", 0)).unwrap();
            let found = store_image::recognize(&fs::read(&image).unwrap()).unwrap();
            fs::remove_file(image).unwrap();
            found.block_size
        };
        let gzip = |options: &str| Packing { compression: options.parse().ok(), ..Packing::default() };
        assert_eq!(block_size(&gzip("gzip")), 128 << 10);
        assert_eq!(block_size(&Packing { block_size: Some(1 << 20), ..gzip("gzip") }), 1 << 20);
        // As `netboot.squashfsCompression` can have it: in nixpkgs the words go to mksquashfs, too.
        assert_eq!(block_size(&gzip("gzip -Xcompression-level 1 -b 1M")), 1 << 20);
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
            assert_eq!(packed_bytes(line), bytes, "{line:?}");
        }
    }
}
