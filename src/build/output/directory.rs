//! The output directory: files are written to a staging directory in it, and published when all of them are complete.

use crate::build::output::checked::{KnownFile, describe};
use crate::build::output::copies::{is_private, new_file, reflink};
use crate::build::output::earlier;
use crate::contract::manifest::FileEntry;
use crate::formats::digest;
use crate::host::directory_lock::DirectoryLock;
use crate::host::file;
use crate::host::generation::Generation;
use crate::host::progress::Progress;
use crate::host::publication;
use crate::host::replace::{ensure_replaceable, flush};
use crate::host::staging::{Claim, Staging};
use anyhow::{Context, Error, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The store of this machine, in which output files may be symlinks.
const STORE: &str = "/nix/store";

/// An output directory whose new files are not visible yet.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    // Deleted before `_made`.
    staging: Staging,
    _made: Made,
    entries: Vec<FileEntry>,
    /// Whether the output is single files, which lie beside files of other outputs.
    single: bool,
    /// The directory that the files were made from.
    source: Option<Generation>,
}

/// The directory itself if this output made it: it does not stay if it gets no files.
#[derive(Debug)]
struct Made(Option<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Fails if it has files.
            drop(fs::remove_dir(path));
        }
    }
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
    /// Opens `path` for the files of a build or of a tree, and makes it if it is missing. Finishes a publication that was interrupted
    /// there, and deletes the unfinished files of builds that were killed.
    ///
    /// # Errors
    ///
    /// A directory that cannot be made or written to, or that another firn is writing to.
    pub fn create(path: &Path) -> Result<Self> {
        Self::with_claim(path, Claim::Directory)
    }

    fn with_claim(path: &Path, claim: Claim) -> Result<Self> {
        let made = Made((!path.is_dir()).then(|| path.into()));
        if made.0.is_some() {
            fs::create_dir_all(path).with_context(|| {
                format!("making the output directory {}; give another directory with --out", path.display())
            })?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            flush(parent)?;
        }
        let lock = DirectoryLock::take(path)?;
        publication::settle_locked(&lock)?;
        let staging = Staging::create(&lock, claim).with_context(|| {
            format!("writing to the output directory {}; give another directory with --out", path.display())
        })?;
        Ok(Self {
            path: path.into(),
            staging,
            _made: made,
            entries: Vec::new(),
            single: matches!(claim, Claim::File(_)),
            source: None,
        })
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
        Ok((Self::with_claim(parent, Claim::File(name))?, name.into()))
    }

    /// Names the directory that the files are made from: they are published only if it has not changed until then.
    pub fn made_from(&mut self, source: Generation) {
        self.source = Some(source);
    }

    /// The present path of the file whose final name is `name`.
    #[must_use]
    pub fn staged(&self, name: &str) -> PathBuf {
        self.staging.path().join(name)
    }

    /// The staging directory; files in it that are not [added](Self::add) are no part of the output.
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
        self.write_with(name, false, write)
    }

    /// The same; only its owner may read the file if it is `private`.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub fn write_with<T>(
        &mut self,
        name: &str,
        private: bool,
        write: impl FnOnce(&mut Output) -> Result<T>,
    ) -> Result<T> {
        let path = self.staged(name);
        let pack = || -> Result<_> {
            let mut output = digest::Writer::new(BufWriter::new(new_file(&path, private)?));
            let value = write(&mut output)?;
            let (file, bytes, sha256) = output.finish();
            file.into_inner()?;
            Ok((value, FileEntry { name: name.into(), bytes, sha256 }))
        };
        let (value, entry) = pack().map_err(|error| self.write_error(name, error))?;
        self.entries.push(entry);
        Ok(value)
    }

    /// Adds the path of the output to an error.
    #[must_use]
    pub fn write_error(&self, name: &str, error: Error) -> Error {
        error.context(format!("writing {}", self.path.join(name).display()))
    }

    /// Makes sure that the file `name` can be made, and does not overwrite one of these inputs.
    ///
    /// # Errors
    ///
    /// An input that is the same file, a file that cannot be replaced, and a file of a build, if the output is no build itself.
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
        if self.single {
            earlier::ensure_no_file_of_a_build(&self.path, name)?;
        }
        ensure_replaceable(&output)
    }

    /// Copies a file: files of the store are read-only, and the copy is not. One that not everybody may read is copied as one that only
    /// its owner may read. Inside the store it makes a symlink (`store_link_target`).
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
        let bytes = fs::metadata(from).with_context(|| format!("copying {}", from.display()))?.len();
        self.copy_from(name, from, bytes, progress, || Ok(file::regular(from)?))
    }

    /// Adds a file that was described before, as a symlink (`store_link_target`), a reflink or a copy.
    ///
    /// # Errors
    ///
    /// Those of [`copy`](Self::copy), and a file that has changed since then.
    pub fn link(&mut self, name: &str, from: &KnownFile, progress: Progress) -> Result<()> {
        let to = self.staged(name);
        let linked = if let Some(real) = store_link_target(Path::new(STORE), &from.path, &self.path) {
            symlink(real, &to).is_ok()
        } else {
            let source = file::regular(&from.path).with_context(|| format!("reading {}", from.path.display()))?;
            reflink(&source, &to).map_err(|error| self.write_error(name, error.into()))?
        };
        if !linked {
            return self.copy_from(name, &from.path, from.bytes, progress, || from.open(from.bytes));
        }
        from.compare(&to, progress)?;
        self.entries.push(from.entry(name));
        Ok(())
    }

    /// Copies the `bytes` bytes of a reader of the file `from`.
    fn copy_from<R: Read>(
        &mut self,
        name: &str,
        from: &Path,
        bytes: u64,
        progress: Progress,
        open: impl FnOnce() -> Result<R>,
    ) -> Result<()> {
        let context = || format!("copying {}", from.display());
        let private = file::regular(from).and_then(|file| is_private(&file)).with_context(context)?;
        self.write_with(name, private, |output| {
            let step = progress.step("Copying a file", bytes);
            digest::copy(step.reading(open()?), output).with_context(context)?;
            step.done();
            Ok(())
        })
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

    /// Gives every file its final name, all of them or none, in the order in which they were added, and returns their descriptions.
    /// Store images of an earlier output in the directory, which the new one does not have, are removed.
    ///
    /// # Errors
    ///
    /// A file that cannot be replaced, and files of another output that would boot with the new ones.
    pub fn publish(self) -> Result<Vec<FileEntry>> {
        let lock = DirectoryLock::take(&self.path)?;
        publication::settle_locked(&lock)?;
        if let Some(source) = &self.source {
            source.ensure_same()?;
        }
        let names: Vec<_> = self.entries.iter().map(|entry| entry.name.as_str()).collect();
        let stale = if self.single {
            names.iter().try_for_each(|name| earlier::ensure_no_file_of_a_build(&self.path, name))?;
            Vec::new()
        } else {
            if self.source.is_some() {
                earlier::ensure_manifest_of(&self.path, &["ipxe", "kexec"])?;
            }
            earlier::ensure_no_mixture(&self.path, &self.entries)?;
            earlier::stale_images(&self.path, &names)
        };
        publication::publish(&lock, self.staging, &names, &stale)?;
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
    fn c_12_a_file_that_cannot_be_read_is_not_said_to_be_written() {
        let parent = tempfile::tempdir().unwrap();
        let missing = KnownFile::of_this_run(parent.path().join("missing"), 1, "");
        let mut directory = Directory::create(&parent.path().join("out")).unwrap();
        let error = format!("{:#}", directory.link("initrd", &missing, Progress::Quiet).unwrap_err());
        assert!(error.starts_with("reading ") && error.contains("/missing: No such file"), "{error}");
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
