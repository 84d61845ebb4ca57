//! The output directory: files are written to a temporary directory in it, and renamed when all of them are complete.

use crate::contract::manifest::FileEntry;
use crate::formats::digest::{self, sha256};
use crate::host::progress::Progress;
use anyhow::{Context, Error, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The store of this machine, in which output files may be symlinks.
const STORE: &str = "/nix/store";

/// An output directory whose new files are not visible yet.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    staging: TempDir,
    entries: Vec<FileEntry>,
}

/// Describes a file; its name is the last component of the path.
///
/// # Errors
///
/// A file that cannot be read.
pub fn describe(path: &Path, progress: Progress) -> Result<FileEntry> {
    let read = || -> io::Result<_> {
        let file = File::open(path)?;
        let step = progress.step("Taking the checksum", file.metadata()?.len());
        let (bytes, sha256) = sha256(step.reading(file))?;
        step.done();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileEntry { name, bytes, sha256 })
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// Makes a hard link to a file, or copies it where the file system has no hard links.
///
/// # Errors
///
/// Those of copying.
pub fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

/// Makes sure that an output does not lie inside of a system: nobody may change a store path.
///
/// # Errors
///
/// An output that does.
pub fn ensure_outside(out: &Path, toplevel: &Path) -> Result<()> {
    let absolute = std::path::absolute(out).with_context(|| format!("making {} an absolute path", out.display()))?;
    let real = absolute.ancestors().find_map(|path| path.canonicalize().ok());
    ensure!(
        !real.is_some_and(|real| real.starts_with(toplevel)),
        "{} lies inside of the system to build; give another place with --out",
        out.display()
    );
    Ok(())
}

/// Whether two paths lead to one file.
#[must_use]
pub fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The target of a symlink from a directory to a file if both are in the Nix store, none otherwise. A symlink is enough there:
/// neither of the two changes, Nix keeps the targets of references, and its sandbox allows no hard link to a file of another path.
fn store_link_target(store: &Path, file: &Path, directory: &Path) -> Option<PathBuf> {
    let inside = |path: &Path| path.canonicalize().ok().filter(|real| real.starts_with(store));
    inside(directory).and_then(|_| inside(file))
}

/// A file that is being written; its size and checksum are computed on the way.
pub type Output = digest::Writer<BufWriter<File>>;

impl Directory {
    /// Opens `path`, and makes it if it is missing.
    ///
    /// # Errors
    ///
    /// A directory that cannot be made or written to.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("making the output directory {}", path.display()))?;
        let staging = tempfile::Builder::new().prefix(".firn-").tempdir_in(path).with_context(|| {
            format!("writing to the output directory {}; give another directory with --out", path.display())
        })?;
        Ok(Self { path: path.into(), staging, entries: Vec::new() })
    }

    /// Opens the directory of an output file, and returns the name of the file. `path` is the file, or a directory in which the
    /// file gets the name `default`.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create), and a path that names no file.
    pub fn of_file(path: &Path, default: &str) -> Result<(Self, String)> {
        let path = if path.is_dir() { path.join(default) } else { path.into() };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
            bail!("{} is not the name of a file; give another one with --out", path.display());
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Ok((Self::create(parent)?, name.into()))
    }

    /// The present path of the file whose final name is `name`.
    #[must_use]
    pub fn staged(&self, name: &str) -> PathBuf {
        self.staging.path().join(name)
    }

    /// The temporary directory; files in it that are not [added](Self::add) are no part of the output.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.staging.path()
    }

    /// Writes the file `name`, and returns the result of `write`.
    ///
    /// # Errors
    ///
    /// Those of `write` and of writing.
    pub fn write<T>(&mut self, name: &str, write: impl FnOnce(&mut Output) -> Result<T>) -> Result<T> {
        let path = self.staged(name);
        let pack = || -> Result<_> {
            let mut output = digest::Writer::new(BufWriter::new(File::create(&path)?));
            let value = write(&mut output)?;
            let (file, bytes, sha256) = output.finish();
            file.into_inner()?.sync_all()?;
            Ok((value, FileEntry { name: name.into(), bytes, sha256 }))
        };
        let (value, entry) = pack().map_err(|error| self.write_error(name, error))?;
        self.entries.push(entry);
        Ok(value)
    }

    /// Adds the path of the output to an error, and the next step if the file system is full.
    pub fn write_error(&self, name: &str, error: Error) -> Error {
        let kind = error.root_cause().downcast_ref().map(io::Error::kind);
        let full = matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded));
        let advice = if full { "; make room there, or give another place with --out" } else { "" };
        error.context(format!("writing {}{advice}", self.path.join(name).display()))
    }

    /// Makes sure that the file `name` does not overwrite one of these inputs.
    ///
    /// # Errors
    ///
    /// An input that is the same file.
    pub fn ensure_no_input<'a>(&self, name: &str, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        let output = self.path.join(name);
        for input in inputs {
            ensure!(
                !same(&output, input),
                "{} would overwrite {}, which is an input; give another name with --out",
                output.display(),
                input.display()
            );
        }
        Ok(())
    }

    /// Copies a file without its mode: files of the store are read-only. Inside the store it makes a symlink (`store_link_target`).
    ///
    /// # Errors
    ///
    /// Those of reading and writing, with both paths.
    pub fn copy(&mut self, name: &str, from: &Path, progress: Progress) -> Result<()> {
        if let Some(real) = store_link_target(Path::new(STORE), from, &self.path) {
            let entry = FileEntry { name: name.into(), ..describe(&real, progress)? };
            symlink(real, self.staged(name)).with_context(|| format!("linking to {}", from.display()))?;
            self.entries.push(entry);
            return Ok(());
        }
        self.write(name, |output| {
            let mut copy = || -> io::Result<_> {
                let file = File::open(from)?;
                let step = progress.step("Copying a file", file.metadata()?.len());
                digest::copy(step.reading(file), output)?;
                step.done();
                Ok(())
            };
            copy().with_context(|| format!("copying {}", from.display()))
        })
    }

    /// Adds a file that exists already, as a hard link, a symlink (`store_link_target`) or a copy. `entry` describes it, with the name
    /// that it gets here.
    ///
    /// # Errors
    ///
    /// Those of [`copy`](Self::copy).
    pub fn link(&mut self, entry: FileEntry, from: &Path, progress: Progress) -> Result<()> {
        let to = self.staged(&entry.name);
        let linked = match store_link_target(Path::new(STORE), from, &self.path) {
            Some(real) => symlink(real, to),
            None => fs::hard_link(from, to),
        };
        if linked.is_err() {
            return self.copy(&entry.name, from, progress);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Adds files that were written to their [staged](Self::staged) paths.
    pub fn add(&mut self, entries: &[FileEntry]) {
        self.entries.extend_from_slice(entries);
    }

    /// The files so far, in order.
    #[must_use]
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Gives every file its final name, in the order in which they were added, and returns their descriptions.
    ///
    /// # Errors
    ///
    /// A file that cannot be renamed.
    pub fn publish(self) -> Result<Vec<FileEntry>> {
        for FileEntry { name, .. } in &self.entries {
            let target = self.path.join(name);
            fs::rename(self.staged(name), &target).with_context(|| format!("writing {}", target.display()))?;
        }
        self.staging.close().context("removing the temporary directory")?;
        Ok(self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn files(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_together_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("out");
        let mut directory = Directory::create(&out).unwrap();
        let new = |output: &mut Output| Ok(output.write_all(b"new")?);
        directory.write("a", new).unwrap();
        fs::write(out.join("a"), "old").unwrap();
        drop(directory);
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "old");
        assert_eq!(files(&out), ["a"]);

        let mut directory = Directory::create(&out).unwrap();
        directory.write("a", new).unwrap();
        fs::write(directory.staged("b"), "new").unwrap();
        directory.add(&[describe(&directory.staged("b"), Progress::Quiet).unwrap()]);
        let [a, b] = directory.entries() else { panic!("{directory:?}") };
        assert_eq!((a.bytes, &a.sha256), (b.bytes, &b.sha256));
        directory.publish().unwrap();
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "new");
        assert_eq!(files(&out), ["a", "b"]);
    }

    #[test]
    fn files_of_the_store_become_symlinks() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(path("store/out")).unwrap();
        fs::create_dir(path("elsewhere")).unwrap();
        for file in ["store/image", "elsewhere/image"] {
            fs::write(path(file), "an image").unwrap();
        }
        symlink("image", path("store/link")).unwrap();
        let found = |file, directory| store_link_target(&path("store"), &path(file), &path(directory));
        for file in ["store/image", "store/link"] {
            assert_eq!(found(file, "store/out"), Some(path("store/image")), "{file}");
        }
        for (file, directory) in
            [("elsewhere/image", "store/out"), ("store/image", "elsewhere"), ("store/none", "store/out")]
        {
            assert_eq!(found(file, directory), None, "{file} {directory}");
        }
    }
}
