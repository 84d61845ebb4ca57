//! The Nix database of this machine: the closure of a system, and the registration of each of its paths.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

/// How many store paths one command line gets: those of a whole closure can be too long for it.
const PATHS_AT_ONCE: usize = 1000;

/// A store path as `nix-store --load-db` takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registered {
    /// The store path.
    pub path: String,
    /// SHA-256 of its NAR, as Nix prints it.
    pub nar_hash: String,
    /// Size of its NAR, bytes.
    pub nar_size: u64,
    /// Store paths it refers to, itself among them if it does.
    pub references: Vec<String>,
}

/// The closure of some store paths, with themselves, sorted by path.
///
/// # Errors
///
/// No Nix on this machine, a path that is not valid in its database, or a Nix that fails.
pub fn closure(paths: &[PathBuf]) -> Result<Vec<Registered>> {
    let paths: Option<Vec<_>> = paths.iter().map(|path| path.to_str()).collect();
    let paths = paths.context("a store path is not UTF-8")?;
    let all = paths.join(" and ");
    let requisites = output(&[&["--query", "--requisites"], paths.as_slice()].concat()).with_context(|| {
        format!("Nix does not know the closure of {all}; build or copy it with Nix (nix-build, nix copy) first")
    })?;
    // For several paths it prints their common references more than once.
    let requisites: BTreeSet<_> = requisites.lines().collect();
    let requisites: Vec<_> = requisites.into_iter().collect();
    let mut closure = Vec::new();
    for paths in requisites.chunks(PATHS_AT_ONCE) {
        let dump = output(&[&["--dump-db"], paths].concat())?;
        closure.extend(parse(&dump).context("firn cannot read the output of nix-store --dump-db")?);
    }
    closure.sort();
    ensure!(
        closure.len() == requisites.len(),
        "nix-store registered {} of the {} paths in the closure of {all}; check the store with nix-store --verify",
        closure.len(),
        requisites.len()
    );
    Ok(closure)
}

/// The registration as nixpkgs' closureInfo writes it: nothing in it tells one build machine from another, so the derivers,
/// which may, are left out.
#[must_use]
pub fn registration(closure: &[Registered]) -> String {
    let no_deriver = String::new();
    let lines = closure.iter().flat_map(|path| {
        let (size, count) = (path.nar_size.to_string(), path.references.len().to_string());
        [path.path.clone(), path.nar_hash.clone(), size, no_deriver.clone(), count]
            .into_iter()
            .chain(path.references.iter().cloned())
    });
    lines.map(|line| line + "\n").collect()
}

/// Reads what `nix-store --dump-db` prints: per path the lines path, hash, size, deriver (may be empty), number of
/// references, then the references.
///
/// # Errors
///
/// Text that ends early, or a number that is none.
pub fn parse(dump: &str) -> Result<Vec<Registered>> {
    let mut lines = dump.lines();
    let mut closure = Vec::new();
    while let Some(path) = lines.next() {
        let mut next = || lines.next().with_context(|| format!("the registration of {path} is cut short"));
        let nar_hash = next()?.to_owned();
        let nar_size = next()?.parse().with_context(|| format!("the NAR size of {path}"))?;
        let _deriver = next()?;
        let count: usize = next()?.parse().with_context(|| format!("the number of references of {path}"))?;
        let mut references = Vec::new();
        for _ in 0..count {
            references.push(next()?.to_owned());
        }
        references.sort();
        closure.push(Registered { path: path.into(), nar_hash, nar_size, references });
    }
    Ok(closure)
}

/// Whether this is the hash of a NAR as `nix-store --load-db` takes it: SHA-256 in 52 of Nix' letters or in 64 hexadecimal
/// digits, with or without its name in front, or as an SRI hash.
#[must_use]
pub fn is_hash(text: &str) -> bool {
    const NIX32: &str = "0123456789abcdfghijklmnpqrsvwxyz";
    if let Some(base64) = text.strip_prefix("sha256-") {
        return base64.len() == 44 && base64.ends_with('=');
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    match digits.len() {
        52 => digits.chars().all(|digit| NIX32.contains(digit)),
        64 => digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        _ => false,
    }
}

/// Runs nix-store and returns what it prints.
fn output(arguments: &[&str]) -> Result<String> {
    let output = Command::new("nix-store").args(arguments).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::Error::new(error).context(
            "there is no nix-store on the PATH, which knows the closure of a system; install Nix (Debian: apt install nix-bin) or \
             run firn where the system was built",
        ),
        _ => anyhow::Error::new(error).context("running nix-store"),
    })?;
    if !output.status.success() {
        bail!(
            "nix-store {} failed: {}",
            arguments.first().unwrap_or(&""),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("the output of nix-store is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "/nix/store/b\nsha256:1\n120\n/nix/store/b.drv\n2\n/nix/store/b\n/nix/store/a\n\
        /nix/store/a\nsha256:2\n80\n\n0\n";

    #[test]
    fn registrations_lose_their_derivers_and_nothing_else() {
        let closure = parse(DUMP).unwrap();
        assert_eq!(closure[0].references, ["/nix/store/a", "/nix/store/b"]);
        assert_eq!(
            registration(&closure),
            "/nix/store/b\nsha256:1\n120\n\n2\n/nix/store/a\n/nix/store/b\n/nix/store/a\nsha256:2\n80\n\n0\n"
        );
        assert_eq!(parse(&registration(&closure)).unwrap(), closure);
    }

    #[test]
    fn hashes() {
        for (text, expected) in [
            ("sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s", true),
            ("sha256:e8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s1", false),
            ("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", true),
            ("sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", true),
            ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", true),
            ("sha256:", false),
            ("md5:900150983cd24fb0d6963f7d28e17f72", false),
        ] {
            assert_eq!(is_hash(text), expected, "{text}");
        }
    }

    #[test]
    fn a_registration_that_is_cut_short_is_an_error() {
        for cut in 1..DUMP.lines().count() {
            let text: Vec<_> = DUMP.lines().take(cut).collect();
            assert_eq!(parse(&text.join("\n")).is_err(), cut != 7, "{cut}");
        }
    }
}
