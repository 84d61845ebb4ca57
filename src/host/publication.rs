//! The publication of an output: its files, which lie complete in a staging directory, get their final names.
//!
//! One file is renamed. For several, the staging directory first becomes a journal: one rename to `.firn-publish-XXXXXX` decides that
//! the new output counts. Then all old files go, the last one first, and after that the new ones get their names, so that old and new
//! files never lie side by side. A boot script and the manifest are the last files of an output. If the process is killed in
//! between, the next one that writes to the directory finishes its work, and so does `firn verify` ([`settle`]); those that only read
//! it change nothing ([`ensure_settled`]).

use crate::host::directory_lock::DirectoryLock;
use crate::host::replace::{ensure_replaceable, flush};
use crate::host::staging::{PREFIX, Staging, is_claimed, is_suffix};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

/// The beginning of the names of journals.
const JOURNAL: &str = ".firn-publish-";

/// The file in a journal with its [`List`]. Without it, the journal is done.
const LIST: &str = ".firn-publish.json";

/// The longest list that is read, bytes.
const LONGEST_LIST: u64 = 1 << 20;

/// The files of a publication, by their names.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    /// The new files, in the order of their renames.
    files: Vec<String>,
    /// Old files that the output does not have any more.
    stale: Vec<String>,
}

/// Gives the staged `files` their final names in the locked directory, in this order, and removes the `stale` files there.
///
/// # Errors
///
/// Before anything has changed: a name that is no file name, a file that cannot be [replaced](ensure_replaceable), and those of
/// writing. After that: an error that says how to finish the publication.
pub fn publish(lock: &DirectoryLock, staging: Staging, files: &[&str], stale: &[String]) -> Result<()> {
    let list = List {
        files: files.iter().map(|name| (*name).into()).collect(),
        stale: stale.iter().map(Into::into).collect(),
    };
    list.check()?;
    for name in files {
        ensure_replaceable(&lock.path.join(name))?;
        let staged = staging.path().join(name);
        // A symlink is written with its directory.
        if !staged.is_symlink() {
            flush(&staged)?;
        }
    }
    let (out, path) = (&lock.directory, &lock.path);
    let from = staging.path().file_name().context("a staging directory without a name")?.to_owned();
    if let ([name], []) = (files, stale) {
        step();
        renameat(out, Path::new(&from).join(name), out, *name)
            .with_context(|| format!("writing {}", path.join(name).display()))?;
        step();
        return flush(path);
    }
    fs::write(staging.path().join(LIST), serde_json::to_vec(&list)?)
        .with_context(|| format!("writing the list of files in {}", path.display()))?;
    flush(&staging.path().join(LIST))?;
    flush(staging.path())?;
    let suffix = from.to_string_lossy().strip_prefix(PREFIX).unwrap_or_default().to_owned();
    let journal = format!("{JOURNAL}{suffix}");
    step();
    renameat(out, &from, out, &journal)
        .with_context(|| format!("renaming a directory in {}: the output is unchanged", path.display()))?;
    // Locked until the end: the lock of the staging directory is that of the journal.
    let _lock = staging.keep();
    flush(path).and_then(|()| finish(lock, &journal)).with_context(|| {
        format!("the new files are complete in {}; solve this problem, and finish with firn verify", path.display())
    })
}

/// Makes sure that a directory has all files of its output, without changing it.
///
/// # Errors
///
/// A publication that was interrupted there.
pub fn ensure_settled(directory: &Path) -> Result<()> {
    ensure!(
        journals(directory)?.is_empty(),
        "the publication of a new output in {0} was interrupted, and some of its files are missing; finish it with firn verify {0}",
        directory.display()
    );
    Ok(())
}

/// Finishes the publications of processes that were killed in this directory, if there are any.
///
/// # Errors
///
/// A publication that cannot be finished here, as on a read-only file system. Until it is finished, the directory has only some of
/// its files.
pub fn settle(directory: &Path) -> Result<()> {
    if journals(directory)?.is_empty() {
        return Ok(());
    }
    let unfinished = || {
        format!(
            "the publication of a new output in {} was interrupted, and cannot be finished here; run firn verify where the directory \
             can be written, as its owner",
            directory.display()
        )
    };
    DirectoryLock::take(directory).and_then(|lock| settle_locked(&lock)).with_context(unfinished)
}

/// The same for a directory that is locked already.
///
/// # Errors
///
/// As [`settle`].
pub fn settle_locked(lock: &DirectoryLock) -> Result<()> {
    journals(&lock.path)?.iter().try_for_each(|journal| finish(lock, journal))
}

/// The journals in a directory: directories with the names and the claims of staging directories. Except those of other users where files of others are not to be trusted, as in /tmp.
fn journals(directory: &Path) -> Result<Vec<String>> {
    let context = || format!("reading the directory {}", directory.display());
    let entries = match fs::read_dir(directory) {
        // Without a right to read the directory its files can be read all the same.
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied) =>
        {
            return Ok(Vec::new());
        }
        entries => entries.with_context(context)?,
    };
    let parent = fs::metadata(directory).with_context(context)?;
    let trusted = [parent.uid(), rustix::process::geteuid().as_raw()];
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(context)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.strip_prefix(JOURNAL).is_some_and(is_suffix) || !is_claimed(&entry.path()) {
            continue;
        }
        match entry.metadata() {
            // Finished in this moment.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            metadata => {
                let metadata = metadata.with_context(context)?;
                if metadata.is_dir() && (parent.mode() & 0o1000 == 0 || trusted.contains(&metadata.uid())) {
                    names.push(name);
                }
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Does the rest of a publication. All of it can be done again.
fn finish(lock: &DirectoryLock, journal: &str) -> Result<()> {
    let (out, path) = (&lock.directory, &lock.path);
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = openat(out, journal, flags, Mode::empty())
        .with_context(|| format!("opening {}", path.join(journal).display()))?;
    let list = List::read(&from).with_context(|| {
        let journal = path.join(journal);
        format!("{}/{LIST} is damaged; remove {0}, and make the output again", journal.display())
    })?;
    if let Some(list) = list {
        let mut waiting = Vec::new();
        for name in &list.files {
            match statat(&from, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => waiting.push(name),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).with_context(|| format!("looking at {}", path.join(name).display())),
            }
        }
        for name in waiting.iter().rev().copied().chain(&list.stale) {
            step();
            match unlinkat(out, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                removed => removed.with_context(|| format!("removing the old {}", path.join(name).display()))?,
            }
        }
        flush(path)?;
        for name in waiting {
            step();
            renameat(&from, name, out, name).with_context(|| format!("writing {}", path.join(name).display()))?;
        }
        flush(path)?;
        step();
        unlinkat(&from, LIST, AtFlags::empty())
            .with_context(|| format!("removing {}/{LIST}", path.join(journal).display()))?;
    }
    step();
    fs::remove_dir_all(path.join(journal)).with_context(|| format!("removing {}", path.join(journal).display()))?;
    flush(path)
}

impl List {
    /// Reads the list of a journal. None if the journal is done.
    fn read(journal: impl rustix::fd::AsFd) -> Result<Option<Self>> {
        // A pipe without a writer opens at once with this flag, and is empty.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(journal, LIST, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            file => File::from(file?),
        };
        let mut json = Vec::new();
        file.take(LONGEST_LIST).read_to_end(&mut json)?;
        let list: Self = serde_json::from_slice(&json)?;
        list.check()?;
        Ok(Some(list))
    }

    /// Makes sure that all names are those of different files in the directory: another user may have written the list.
    fn check(&self) -> Result<()> {
        let mut names = HashSet::new();
        for name in self.files.iter().chain(&self.stale) {
            let mut parts = Path::new(name).components();
            let plain =
                matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == &**name);
            ensure!(plain && !name.contains('\0'), "{name:?} is not the name of a file in a directory");
            ensure!(names.insert(name), "the name {name} is there twice");
            if name.starts_with(PREFIX) {
                bail!("{name} is a name that firn keeps for its own files; give another one with --out");
            }
        }
        Ok(())
    }
}

/// A place where a test kills this process.
#[cfg(not(test))]
fn step() {}

#[cfg(test)]
use tests::step;

#[cfg(test)]
mod tests;
