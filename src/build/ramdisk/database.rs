//! The Nix database of the booted system, made here by a real Nix: for the machine that boots it is then the copy of a file,
//! and not the largest cost of the whole boot (docs/boot.md, "What it costs").

use crate::build::ramdisk::modules::Packed;
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
/// takes this one and may refuse a newer one.
pub const SCHEMA: u32 = 10;

/// A configuration in which Nix needs no group of build users and does not wait for a disk. Its default for `SQLite` stays, a
/// write-ahead log: without one it locks the database by a directory, made and removed for each path, which costs more than
/// all the rest.
const CONFIGURATION: &str = "build-users-group =\nfsync-metadata = false\ngc-reserved-space = 0\n";

/// When the Nix database of the booted system is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Database {
    /// Now, by this machine's Nix
    #[default]
    Prebuilt,
    /// At every boot, by the system's own Nix
    Load,
}

/// Makes the database of a closure, for the ramdisk. None if it is to be left to the boots, or has to be and `progress` says why.
///
/// # Errors
///
/// A Nix that refuses the registration, and those of reading and writing.
pub fn make(
    when: Database,
    closure: &[Registered],
    toplevel: &Path,
    scratch: &Path,
    progress: Progress,
) -> Result<Option<Packed>> {
    if when == Database::Load {
        return Ok(None);
    }
    let leave = |reason: &str| {
        progress.say(&format!("No prebuilt Nix database, every boot is to make it: {reason}"));
        Ok(None)
    };
    if !has_nix(closure, toplevel) {
        return leave("no path of the system has a bin/nix-store");
    }
    let store = Store::create(scratch)?;
    let Some(output) = store.load(closure).context("running nix-store --load-db")? else {
        return leave("there is no nix-store on the PATH");
    };
    if !output.status.success() {
        return Err(tool::failure(format!(
            "nix-store --load-db failed for the closure of {}: {}; check the store with nix-store --verify, or leave the \
             database to the boots with --database load",
            toplevel.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let schema =
        fs::read_to_string(store.database().join("schema")).context("reading the schema that nix-store wrote")?;
    if schema.trim() != SCHEMA.to_string() {
        return leave(&format!("this machine's Nix makes one of schema {}, not {SCHEMA}", schema.trim()));
    }
    Ok(Some(Packed { path: DATABASE.into(), contents: store.normalized()? }))
}

/// Whether anything in the system could read a database.
fn has_nix(closure: &[Registered], toplevel: &Path) -> bool {
    let mut packages = closure.iter().map(|registered| Path::new(&registered.path));
    toplevel.join("sw/bin/nix-store").exists() || packages.any(|path| path.join("bin/nix-store").exists())
}

/// A store in a directory of its own, in which paths are called `/nix/store/…` all the same: an ordinary user can make one, and
/// so can a build of Nix' in its sandbox.
struct Store {
    /// UTF-8, since Nix and SQL take it as text.
    root: String,
}

impl Store {
    fn create(scratch: &Path) -> Result<Self> {
        let root = scratch.join("database");
        let root = root.to_str().with_context(|| format!("{} is no UTF-8", root.display()))?.to_owned();
        fs::create_dir(&root)
            .and_then(|()| fs::write(format!("{root}/nix.conf"), CONFIGURATION))
            .context(root.clone())?;
        Ok(Self { root })
    }

    fn database(&self) -> PathBuf {
        Path::new(&self.root).join("nix/var/nix/db")
    }

    /// Has Nix register a closure. None if there is no Nix.
    fn load(&self, closure: &[Registered]) -> io::Result<Option<Output>> {
        // Nix registers a derivation together with its outputs, and reads it for that.
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
            // Whatever this machine and this user have set for Nix stays out. A user with a home it wants, and a sandbox has none.
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

    /// The database without what differs from one build to the next: the time, and how its pages happened to be filled.
    fn normalized(&self) -> Result<Vec<u8>> {
        let copy = format!("{}/db.sqlite", self.root);
        let normalize = || -> Result<_> {
            let connection = Connection::open(self.database().join("db.sqlite"))?;
            connection.execute("UPDATE ValidPaths SET registrationTime = 1", [])?;
            connection.execute("VACUUM INTO ?1", [&copy])?;
            Ok(fs::read(&copy)?)
        };
        normalize()
            .with_context(|| format!("copying the Nix database to {copy}; TMPDIR can name a place with more room"))
    }
}

/// A path as part of a URL.
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

    /// A toplevel in which there is a Nix.
    fn toplevel() -> tempfile::TempDir {
        let toplevel = tempfile::tempdir().unwrap();
        fs::create_dir_all(toplevel.path().join("sw/bin")).unwrap();
        fs::write(toplevel.path().join("sw/bin/nix-store"), "").unwrap();
        toplevel
    }

    fn made(closure: &[Registered], scratch: &Path) -> Result<Option<Packed>> {
        make(Database::Prebuilt, closure, toplevel().path(), scratch, Progress::Quiet)
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
        std::thread::sleep(std::time::Duration::from_millis(1100)); // Nix' times have seconds
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
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3, "nothing lies beside it");
    }

    #[test]
    fn what_nix_refuses() {
        let scratch = tempfile::tempdir().unwrap();
        let broken = Registered { nar_hash: "no hash".into(), ..registered("a", &[]) };
        let error = format!("{:#}", made(&[broken], scratch.path()).unwrap_err());
        assert!(error.contains("no hash") && error.contains("--database load"), "{error}");
    }

    #[test]
    fn a_system_without_nix_has_no_database() {
        let (toplevel, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |when, toplevel| make(when, &[registered("a", &[])], toplevel, scratch.path(), Progress::Quiet);
        assert!(make(Database::Prebuilt, toplevel.path()).unwrap().is_none());
        assert!(make(Database::Load, super::tests::toplevel().path()).unwrap().is_none());
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
