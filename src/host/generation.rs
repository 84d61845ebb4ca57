//! The state of an output directory while it is read: a build may replace its files at the same time.

use crate::host::publication::ensure_settled;
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files that tell one output from the next. Each publication makes new files.
const FILES: [&str; 6] = ["manifest.json", "netboot.ipxe", "kexec-boot", "bzImage", "initrd", "initrd.gz"];

/// Device, inode, size and time of a file.
type Identity = (u64, u64, u64, i64, i64);

/// The files of an output directory at one moment.
#[derive(Debug, Clone)]
pub struct Generation {
    directory: PathBuf,
    files: Vec<Option<Identity>>,
}

impl Generation {
    /// Notes the present files of a directory.
    ///
    /// # Errors
    ///
    /// As [`ensure_settled`].
    pub fn of(directory: &Path) -> Result<Self> {
        ensure_settled(directory)?;
        Ok(Self { directory: directory.into(), files: identities(directory) })
    }

    /// Makes sure that the files are still the same: everything that was read belongs together.
    ///
    /// # Errors
    ///
    /// A directory that another firn has written to since.
    pub fn ensure_same(&self) -> Result<()> {
        ensure!(
            identities(&self.directory) == self.files,
            "the files in {} were replaced while firn read them; try again",
            self.directory.display()
        );
        Ok(())
    }
}

fn identities(directory: &Path) -> Vec<Option<Identity>> {
    let identity = |name: &&str| {
        let file = fs::metadata(directory.join(name)).ok()?;
        Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    FILES.iter().map(identity).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_8_a_directory_that_is_replaced_while_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("initrd"), "old").unwrap();
        let before = Generation::of(directory.path()).unwrap();
        fs::write(path("of-somebody-else"), "").unwrap();
        before.ensure_same().unwrap();
        fs::write(path("new"), "new").unwrap();
        fs::rename(path("new"), path("initrd")).unwrap();
        let error = before.ensure_same().unwrap_err().to_string();
        assert!(error.ends_with("were replaced while firn read them; try again"), "{error}");
        fs::remove_file(path("initrd")).unwrap();
        assert!(before.ensure_same().is_err());
    }
}
