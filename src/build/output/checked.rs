//! Descriptions of files; and files that were described before and are read again: they must not have changed in between.

use crate::contract::file_name::FileName;
use crate::contract::manifest::FileEntry;
use crate::formats::digest::{self, sha256};
use crate::host::file;
use crate::host::interrupt::Interruptible;
use crate::host::progress::Progress;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A file whose size and SHA-256 are known.
#[derive(Debug, Clone)]
pub struct KnownFile {
    /// Its path.
    pub path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    sha256: String,
    /// The time at which it was described, and the next step if it has changed since then.
    known: Known,
}

/// The source of a description.
#[derive(Debug, Clone, Copy)]
enum Known {
    Manifest,
    ThisRun,
}

/// A reader of the beginning of a [`KnownFile`]. The read that reaches the end of that part reads the rest of the file, too, and fails
/// if it is another file.
pub struct Checked {
    file: Interruptible<File>,
    expected: KnownFile,
    left: u64,
    digest: digest::Writer<io::Sink>,
}

/// Describes a file; its name is the last component of the path.
///
/// # Errors
///
/// A file that cannot be read.
pub fn describe(path: &Path, progress: Progress) -> Result<FileEntry> {
    let read = || -> io::Result<_> {
        let file = file::regular(path)?;
        let step = progress.step("Taking the checksum", file.metadata()?.len());
        let (bytes, sha256) = sha256(step.reading(file))?;
        step.done();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileEntry { name, bytes, sha256 })
    };
    read().with_context(|| format!("reading {}", path.display()))
}

impl KnownFile {
    /// A file of a build directory, as its manifest describes it.
    #[must_use]
    pub fn of_manifest(path: PathBuf, entry: &FileEntry<FileName>) -> Self {
        Self { path, bytes: entry.bytes, sha256: entry.sha256.clone(), known: Known::Manifest }
    }

    /// A file that this run of firn has described.
    #[must_use]
    pub fn of_this_run(path: PathBuf, bytes: u64, sha256: &str) -> Self {
        Self { path, bytes, sha256: sha256.into(), known: Known::ThisRun }
    }

    /// Opens the file. The reader gives its first `bytes` bytes.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened. The reader fails if the file has changed.
    pub fn open(&self, bytes: u64) -> Result<Checked> {
        let file = file::regular(&self.path).with_context(|| format!("reading {}", self.path.display()))?;
        Ok(Checked::new(file, self.clone(), bytes)?)
    }

    /// Its description under another name.
    #[must_use]
    pub fn entry(&self, name: &str) -> FileEntry {
        FileEntry { name: name.into(), bytes: self.bytes, sha256: self.sha256.clone() }
    }

    /// Makes sure that another name of the file, or a copy of it, is this file.
    ///
    /// # Errors
    ///
    /// Another file, or one that cannot be read.
    pub fn compare(&self, copy: &Path, progress: Progress) -> Result<()> {
        let step = progress.step("Comparing a file", self.bytes);
        let file = file::regular(copy).with_context(|| format!("reading {}", copy.display()))?;
        let checked = Checked::new(file, self.clone(), self.bytes)?;
        digest::copy(step.reading(checked), &mut io::sink())?;
        step.done();
        Ok(())
    }

    fn unreadable(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("reading {}: {error}", self.path.display()))
    }

    fn changed(&self, difference: &str) -> io::Error {
        let (since, advice) = match self.known {
            Known::Manifest => ("the build", "build it again"),
            Known::ThisRun => ("firn took its checksum", "start again when no other program writes to it"),
        };
        io::Error::other(format!("{} was changed since {since} ({difference}): {advice}", self.path.display()))
    }
}

impl Checked {
    fn new(file: File, expected: KnownFile, bytes: u64) -> io::Result<Self> {
        let mut checked =
            Self { file: Interruptible(file), expected, left: bytes, digest: digest::Writer::new(io::sink()) };
        if bytes == 0 {
            checked.finish()?;
        }
        Ok(checked)
    }

    /// Reads the rest of the file, and compares all of it.
    fn finish(&mut self) -> io::Result<()> {
        // One byte more than there should be: a file that became longer has changed, too.
        let rest = self.expected.bytes.saturating_add(1).saturating_sub(self.digest.bytes());
        digest::copy((&mut self.file).take(rest), &mut self.digest)
            .map_err(|error| self.expected.unreadable(&error))?;
        let digest = std::mem::replace(&mut self.digest, digest::Writer::new(io::sink()));
        let (_, bytes, sha256) = digest.finish();
        let expected = &self.expected;
        if bytes > expected.bytes {
            return Err(expected.changed(&format!("it has more than {} bytes", expected.bytes)));
        }
        if bytes < expected.bytes {
            return Err(expected.changed(&format!("it has {bytes} bytes instead of {}", expected.bytes)));
        }
        if sha256 != expected.sha256 {
            return Err(expected.changed(&format!("its SHA-256 is {sha256} instead of {}", expected.sha256)));
        }
        Ok(())
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..most).filter(|part| !part.is_empty()) else { return Ok(0) };
        let length = self.file.read(part).map_err(|error| self.expected.unreadable(&error))?;
        self.digest.write_all(part.get(..length).unwrap_or_default())?;
        self.left -= length as u64;
        if length == 0 || self.left == 0 {
            self.finish()?;
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn c_2_a_file_that_changes_is_no_longer_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let known = |contents: &[u8]| {
            let (bytes, sha256) = sha256(contents).unwrap();
            KnownFile::of_this_run(path.clone(), bytes, &sha256)
        };
        for (contents, expected) in [
            (&b"0123456789"[..], ""),
            (b"012345678", "it has 9 bytes instead of 10"),
            (b"", "it has 0 bytes instead of 10"),
            (b"0123456789\0", "it has more than 10 bytes"),
            (b"x123456789", "its SHA-256 is "),
            (b"012345678x", "its SHA-256 is "),
        ] {
            fs::write(&path, contents).unwrap();
            // All of it, a part of it whose end is not the end of the file, and nothing of it.
            for part in [10, 8, 0] {
                let read = || -> Result<Vec<u8>> {
                    let mut bytes = Vec::new();
                    known(b"0123456789").open(part)?.read_to_end(&mut bytes)?;
                    Ok(bytes)
                };
                match read() {
                    Ok(bytes) if expected.is_empty() => assert_eq!(bytes, contents[..usize::try_from(part).unwrap()]),
                    Ok(_) => panic!("{part} {expected}"),
                    Err(error) => {
                        let (error, name) = (format!("{error:#}"), path.display());
                        let words = [format!("{name} was changed since firn took its checksum ({expected}")];
                        assert!(!expected.is_empty() && words.iter().all(|words| error.contains(words)), "{error}");
                        assert!(error.ends_with("): start again when no other program writes to it"), "{error}");
                    }
                }
            }
        }
        fs::write(&path, "").unwrap();
        assert_eq!(known(b"").open(0).unwrap().read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn c_2_a_copy_is_compared_under_the_name_of_the_original() {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy");
        fs::write(&copy, "1234").unwrap();
        let entry = |contents: &str| {
            let (bytes, sha256) = sha256(contents.as_bytes()).unwrap();
            FileEntry { name: FileName::try_from("initrd".to_owned()).unwrap(), bytes, sha256 }
        };
        KnownFile::of_manifest("initrd".into(), &entry("1234")).compare(&copy, Progress::Quiet).unwrap();
        let error =
            KnownFile::of_manifest("initrd".into(), &entry("1235")).compare(&copy, Progress::Quiet).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("initrd was changed since the build (its") && error.ends_with(": build it again"));
    }
}
