//! The Nix database of the booted system, made at build time by a real Nix: stage 1 then copies a file instead of running Nix,
//! which would be the largest cost of the whole boot (docs/boot.md, "What it costs").

use crate::build::ramdisk::file::RamdiskFile;
use crate::contract::plan::DATABASE;
use crate::formats::registration::{self, Registered};
use crate::host::progress::Progress;
use crate::host::tool;
use anyhow::{Context, Result};
use clap::ValueEnum;
use rusqlite::Connection;
use std::fs;
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The version of the schema since Nix 2.0 (`nixSchemaVersion` in its `libstore/local-store.hh`). The Nix of the booted system
/// reads this one, and may refuse a newer one.
pub const SCHEMA: u32 = 10;

/// A configuration with which Nix needs no group of build users and does not wait for a disk. `SQLite` keeps its write-ahead log,
/// the default: without it Nix makes and removes a lock directory for each path, which takes longer than everything else.
const CONFIGURATION: &str = "build-users-group =\nfsync-metadata = false\ngc-reserved-space = 0\n";

/// When the Nix database of the booted system is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum DatabaseMode {
    /// At build time, by the Nix of this machine
    #[default]
    Prebuilt,
    /// At every boot, by the Nix of the booted system
    Load,
}

/// Makes the database of a closure, for the ramdisk, in the directory `scratch`. None with [`DatabaseMode::Load`], and if it cannot
/// be made here: the booted system makes it then, and `progress` says why.
///
/// # Errors
///
/// A Nix that refuses the registration, and those of reading and writing.
pub fn make(
    when: DatabaseMode,
    closure: &[Registered],
    toplevel: &Path,
    scratch: &Path,
    progress: Progress,
) -> Result<Option<RamdiskFile>> {
    if when == DatabaseMode::Load {
        return Ok(None);
    }
    let leave = |reason: &str| {
        progress
            .say(&format!("No prebuilt Nix database: {reason}. Every boot will make it instead, which takes longer"));
        Ok(None)
    };
    if !has_nix(closure, toplevel) {
        return leave("the system contains no bin/nix-store");
    }
    let store = ChrootStore::create(scratch)?;
    let Some(output) = store.load(closure).context("running nix-store --load-db")? else {
        return leave("there is no nix-store on the PATH");
    };
    if !output.status.success() {
        return Err(tool::failure(format!(
            "nix-store --load-db failed for the closure of {}: {}; check the store with nix-store --verify, or have every boot \
             make the database with --database load",
            toplevel.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let schema =
        fs::read_to_string(store.database().join("schema")).context("reading the schema that nix-store wrote")?;
    if schema.trim() != SCHEMA.to_string() {
        return leave(&format!("the Nix of this machine makes schema {}, and {SCHEMA} is needed", schema.trim()));
    }
    Ok(Some(RamdiskFile { path: DATABASE.into(), contents: store.normalized()? }))
}

/// Whether the system has a Nix, which reads the database.
fn has_nix(closure: &[Registered], toplevel: &Path) -> bool {
    let mut packages = closure.iter().map(|registered| Path::new(&registered.path));
    toplevel.join("sw/bin/nix-store").exists() || packages.any(|path| path.join("bin/nix-store").exists())
}

/// A chroot store (`local?root=` of Nix): its files lie in a directory, and its paths are still called `/nix/store/…`. An ordinary
/// user can make one, and so can a Nix build in its sandbox.
struct ChrootStore {
    /// UTF-8, since Nix and SQL read it as text.
    root: String,
}

impl ChrootStore {
    fn create(scratch: &Path) -> Result<Self> {
        let root = scratch.join("database");
        let root = root
            .to_str()
            .with_context(|| format!("{} is not UTF-8; set TMPDIR to another directory", root.display()))?
            .to_owned();
        fs::create_dir(&root)
            .and_then(|()| fs::write(format!("{root}/nix.conf"), CONFIGURATION))
            .with_context(|| format!("making the store {root} for nix-store --load-db"))?;
        Ok(Self { root })
    }

    fn database(&self) -> PathBuf {
        Path::new(&self.root).join("nix/var/nix/db")
    }

    /// Registers a closure with nix-store. None if this machine has none.
    fn load(&self, closure: &[Registered]) -> io::Result<Option<Output>> {
        // Nix registers a derivation together with its outputs, which it reads from the derivation.
        for path in closure.iter().map(|registered| Path::new(&registered.path)) {
            if path.extension().is_some_and(|extension| extension == "drv") {
                let copy = PathBuf::from(format!("{}{}", self.root, path.display()));
                fs::create_dir_all(copy.with_file_name(""))?;
                fs::copy(path, copy)?;
            }
        }
        let mut registration = tempfile::tempfile_in(&self.root)?;
        registration.write_all(registration::write(closure).as_bytes())?;
        registration.rewind()?;
        let mut nix_store = Command::new("nix-store");
        nix_store
            .arg("--load-db")
            .env("NIX_REMOTE", format!("local?root={}", percent_encoded(&self.root)))
            // The settings of this machine and this user have no effect. Nix needs a user with a home, and a sandbox has none.
            .env("NIX_CONF_DIR", &self.root)
            .env("NIX_USER_CONF_FILES", "")
            .env_remove("NIX_CONFIG")
            .env("USER", "nobody")
            .env("HOME", &self.root)
            .stdin(registration);
        match nix_store.output() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// The database, without the differences between two builds: times, and the order in which its pages were filled.
    fn normalized(&self) -> Result<Vec<u8>> {
        let copy = format!("{}/db.sqlite", self.root);
        let normalize = || -> Result<_> {
            let connection = Connection::open(self.database().join("db.sqlite"))?;
            connection.execute("UPDATE ValidPaths SET registrationTime = 1", [])?;
            connection.execute("VACUUM INTO ?1", [&copy])?;
            Ok(fs::read(&copy)?)
        };
        normalize()
            .with_context(|| format!("copying the Nix database to {copy}; set TMPDIR to a directory with more room"))
    }
}

/// Encodes a path as part of a URL.
fn percent_encoded(path: &str) -> String {
    let encode = |byte| match byte {
        b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(name: &str, references: &[&str]) -> Registered {
        let path = |name: &&str| format!("/nix/store/{}-{name}", "0".repeat(32));
        Registered {
            path: path(&name),
            nar_hash: "0".repeat(64),
            nar_size: 120,
            references: references.iter().map(path).collect(),
        }
    }

    /// A toplevel with a Nix.
    fn toplevel() -> tempfile::TempDir {
        let toplevel = tempfile::tempdir().unwrap();
        fs::create_dir_all(toplevel.path().join("sw/bin")).unwrap();
        fs::write(toplevel.path().join("sw/bin/nix-store"), "").unwrap();
        toplevel
    }

    fn made(closure: &[Registered], scratch: &Path) -> Result<Option<RamdiskFile>> {
        make(DatabaseMode::Prebuilt, closure, toplevel().path(), scratch, Progress::Quiet)
    }

    #[test]
    fn the_same_registration_is_the_same_bytes_anywhere_and_any_time() {
        let closure = [registered("a", &["a"]), registered("b", &["a"]), registered("c", &["a", "b"])];
        let scratch = tempfile::tempdir().unwrap();
        let made_in = |name: &str| {
            let scratch = scratch.path().join(name);
            fs::create_dir(&scratch).unwrap();
            made(&closure, &scratch).unwrap().unwrap().contents
        };
        let first = made_in("first");
        std::thread::sleep(std::time::Duration::from_millis(1100)); // the times of Nix have seconds
        assert!(made_in("a place & \u{fc} %20 ?x=y#") == first);

        let copy = scratch.path().join("copy");
        fs::write(&copy, first).unwrap();
        let rows = |query: &str| {
            let connection = Connection::open(&copy).unwrap();
            connection.query_row(query, [], |row| row.get::<_, String>(0)).unwrap()
        };
        let paths = "SELECT group_concat(id || substr(path, 44) || registrationTime, ' ') FROM ValidPaths";
        assert_eq!(rows(paths), "1-a1 2-b1 3-c1");
        assert_eq!(rows("SELECT group_concat(referrer || reference, ' ') FROM Refs"), "11 21 31 32");
        assert_eq!(rows("PRAGMA journal_mode"), "delete");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3, "no other file is left");
    }

    #[test]
    fn registrations_that_nix_refuses() {
        let scratch = tempfile::tempdir().unwrap();
        let broken = Registered { nar_hash: "no hash".into(), ..registered("a", &[]) };
        let error = format!("{:#}", made(&[broken], scratch.path()).unwrap_err());
        assert!(error.contains("no hash") && error.contains("--database load"), "{error}");
    }

    #[test]
    fn a_system_without_nix_has_no_database() {
        let (toplevel, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |when, toplevel| make(when, &[registered("a", &[])], toplevel, scratch.path(), Progress::Quiet);
        assert!(make(DatabaseMode::Prebuilt, toplevel.path()).unwrap().is_none());
        assert!(make(DatabaseMode::Load, super::tests::toplevel().path()).unwrap().is_none());
    }

    #[test]
    fn derivations_are_registered_with_their_outputs() {
        let expression = "derivation { name = \"firn-test\"; system = \"none\"; builder = \"none\"; }";
        let instantiated = Command::new("nix-instantiate").args(["--expr", expression]).output().unwrap();
        let path = String::from_utf8(instantiated.stdout).unwrap().trim().to_owned();
        assert!(path.ends_with("-firn-test.drv"), "{}", String::from_utf8_lossy(&instantiated.stderr));
        let scratch = tempfile::tempdir().unwrap();
        made(&[Registered { path, ..registered("", &[]) }], scratch.path()).unwrap().unwrap();

        let connection = Connection::open(scratch.path().join("database/db.sqlite")).unwrap();
        let output = connection.query_row("SELECT id, path FROM DerivationOutputs", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        });
        let (id, path) = output.unwrap();
        assert!(id == "out" && path.ends_with("-firn-test"), "{id} {path}");
    }
}
