//! The store image: a squashfs whose root is the store, as nixpkgs' `lib/make-squashfs.nix` makes it.

use super::nix::{self, Registered};
use super::progress::{Progress, Step};
use super::{Options, interrupt};
use crate::plan::REGISTRATION;
use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

/// Words for mksquashfs about compression, in the form of nixpkgs' `netboot.squashfsCompression`: the compressor and its
/// options (`zstd -Xcompression-level 19`), or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression(String);

impl Default for Compression {
    /// nixpkgs' choice (`installer/netboot/netboot.nix`).
    fn default() -> Self {
        Self("zstd -Xcompression-level 19".into())
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Compression {
    type Err = anyhow::Error;

    fn from_str(words: &str) -> Result<Self> {
        ensure!(!words.trim().is_empty(), "there is no compressor; \"none\" leaves the store uncompressed");
        Ok(Self(words.into()))
    }
}

impl Compression {
    fn arguments(&self) -> Vec<&str> {
        match self.0.trim() {
            // -no-compression is the same from mksquashfs 4.6 on
            "none" => vec!["-noI", "-noId", "-noD", "-noF", "-noX"],
            words => ["-comp"].into_iter().chain(words.split_whitespace()).collect(),
        }
    }
}

/// Makes the store image of a closure at `image`, with its registration in it.
///
/// # Errors
///
/// No mksquashfs on this machine, or one that fails: its last words are in the error.
pub fn make(closure: &[Registered], image: &Path, options: &Options, scratch: &Path, progress: Progress) -> Result<()> {
    let registration = scratch.join(REGISTRATION);
    fs::write(&registration, nix::registration(closure)).context("writing the registration")?;
    // Whatever the umask of this build: everybody on the booted system may read it, as everything else in the store.
    fs::set_permissions(&registration, Permissions::from_mode(0o444)).context("making the registration readable")?;

    let mut command = Command::new("mksquashfs");
    command.arg(&registration).args(closure.iter().map(|path| &path.path)).arg(image);
    set_options(&mut command, options);
    let step = progress.step("Packing the store", closure.iter().map(|path| path.nar_size).sum());
    run(&mut command, &step)?;
    step.done();
    Ok(())
}

fn set_options(command: &mut Command, options: &Options) {
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
        .args(["-b", &options.block_size.to_string()])
        .args(["-processors", &std::thread::available_parallelism().map_or(1, NonZero::get).to_string()])
        .args(options.compression.arguments())
        .args(["-info", "-no-progress"])
        // Nix gives every file the time 1; the image, its root and the registration get the same.
        .env("SOURCE_DATE_EPOCH", "1");
}

fn run(command: &mut Command, step: &Step) -> Result<()> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::Error::new(error).context(
            "there is no mksquashfs on the PATH, which makes the store image; install squashfs-tools (4.4 or newer)",
        ),
        _ => anyhow::Error::new(error).context("running mksquashfs"),
    })?;
    let stdout = child.stdout.take().context("mksquashfs has no standard output")?;
    let mut stderr = child.stderr.take().context("mksquashfs has no standard error")?;
    // Both pipes are read at the same time: mksquashfs stops when one is full.
    let (status, complaints) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
            lines.filter_map(|line| packed(&String::from_utf8_lossy(&line))).for_each(|bytes| step.advance(bytes));
        });
        let complaints = scope.spawn(move || {
            let mut text = Vec::new();
            // What was read before an error is better than nothing.
            drop(stderr.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        });
        (wait(&mut child), complaints.join().unwrap_or_default())
    });
    let status = status.context("waiting for mksquashfs")?;
    if !status.success() {
        bail!("mksquashfs failed ({status}): {}", last_words(&complaints));
    }
    Ok(())
}

/// Waits for the end of a child, and brings it about when this process is asked to end.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            // A signal of the terminal reaches the child, too.
            interrupt::check()?;
            return Ok(status);
        }
        if let Err(interrupted) = interrupt::check() {
            child.kill()?;
            child.wait()?;
            return Err(interrupted);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of what mksquashfs has to say, as one line, without the manual that it adds when an option is wrong.
fn last_words(complaints: &str) -> String {
    let reason = complaints.split("SYNTAX:").next().unwrap_or_default();
    let lines: Vec<_> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join("; ")
}

/// The size of the file that a line of `mksquashfs -info` reports as packed.
fn packed(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("file ")?.rsplit_once(", uncompressed size ")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn compression_words() {
        for (words, arguments) in [
            ("zstd -Xcompression-level 19", &["-comp", "zstd", "-Xcompression-level", "19"][..]),
            (" lz4  -Xhc ", &["-comp", "lz4", "-Xhc"]),
            ("gzip", &["-comp", "gzip"]),
            ("none", &["-noI", "-noId", "-noD", "-noF", "-noX"]),
        ] {
            assert_eq!(words.parse::<Compression>().unwrap().arguments(), arguments, "{words:?}");
        }
        assert!(" ".parse::<Compression>().is_err());
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
        let options = Options { compression: Compression("gzip".into()), ..Options::new("/", "/", "/") };
        set_options(&mut command, &options);
        let error = run(&mut command, &Progress::Quiet.step("", 0)).unwrap_err().to_string();
        assert!(error.contains("Failed to read file"), "{error}");
    }

    #[test]
    fn without_mksquashfs() {
        let step = Progress::Quiet.step("", 0);
        let error = run(&mut Command::new("/nonexistent/mksquashfs"), &step).unwrap_err().to_string();
        assert!(error.contains("no mksquashfs") && error.contains("install squashfs-tools"), "{error}");
    }

    #[test]
    fn the_manual_is_no_reason() {
        for (complaints, expected) in [
            ("mksquashfs: invalid option\n\nSYNTAX:mksquashfs source1\nmore\n", "mksquashfs: invalid option"),
            (
                "\nWrite failed because No space left\nFATAL ERROR: Failed\n",
                "Write failed because No space left; FATAL ERROR: Failed",
            ),
            ("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "2; 3; 4; 5; 6; 7; 8; 9"),
            ("", ""),
        ] {
            assert_eq!(last_words(complaints), expected);
        }
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
