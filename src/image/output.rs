//! The output directory: files are written beside their final names and renamed when everything is there.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An output directory whose new files are not visible yet.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    staging: TempDir,
    names: Vec<String>,
}

impl Directory {
    /// Opens `path`, made if it is not there.
    ///
    /// # Errors
    ///
    /// A directory that cannot be made or written to.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("making the output directory {}", path.display()))?;
        let staging = tempfile::Builder::new().prefix(".firn-").tempdir_in(path).with_context(|| {
            format!("writing to the output directory {}; give another one with --out", path.display())
        })?;
        Ok(Self { path: path.into(), staging, names: Vec::new() })
    }

    /// Where to write the file that will be called `name`.
    pub fn path(&mut self, name: &str) -> PathBuf {
        self.names.push(name.into());
        self.staged(name)
    }

    /// Where a file lies that will be called `name`.
    pub fn staged(&self, name: &str) -> PathBuf {
        self.staging.path().join(name)
    }

    /// Names of the files so far, in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A directory for what is not part of the output.
    pub fn scratch(&self) -> &Path {
        self.staging.path()
    }

    /// Gives every file its final name, the one that describes the others last.
    ///
    /// # Errors
    ///
    /// A file that cannot be renamed.
    pub fn publish(self) -> Result<()> {
        for name in &self.names {
            let target = self.path.join(name);
            fs::rename(self.staged(name), &target).with_context(|| format!("writing {}", target.display()))?;
        }
        self.staging.close().context("removing the temporary directory")
    }
}

/// Writes a small file.
///
/// # Errors
///
/// Those of writing, with the path.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Copies a file, not its mode: what lies in the store is read-only.
///
/// # Errors
///
/// Those of reading and writing, with both paths.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> io::Result<()> {
        let mut file = File::create(to)?;
        io::copy(&mut File::open(from)?, &mut file)?;
        file.sync_all()
    };
    copy().with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        write(&directory.path("a"), "new").unwrap();
        fs::write(out.join("a"), "old").unwrap();
        drop(directory);
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "old");
        assert_eq!(files(&out), ["a"]);

        let mut directory = Directory::create(&out).unwrap();
        write(&directory.path("a"), "new").unwrap();
        write(&directory.path("b"), "new").unwrap();
        directory.publish().unwrap();
        assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "new");
        assert_eq!(files(&out), ["a", "b"]);
    }
}
