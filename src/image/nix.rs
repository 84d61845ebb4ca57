//! What Nix knows of the system: its closure and the registration of each path in it.

use anyhow::{Context, Result, bail, ensure};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// How many store paths one command line gets: a closure can have more than fit.
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

/// The closure of a store path, with itself, sorted by path.
///
/// # Errors
///
/// No Nix on this machine, a path that is not valid in its database, or a Nix that fails.
pub fn closure(path: &Path) -> Result<Vec<Registered>> {
    let path = path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?;
    let requisites = output(&["--query", "--requisites", path]).with_context(|| {
        format!("Nix does not know the closure of {path}; build or copy it with Nix (nix-build, nix copy) first")
    })?;
    let requisites: Vec<_> = requisites.lines().collect();
    let mut closure = Vec::new();
    for paths in requisites.chunks(PATHS_AT_ONCE) {
        let dump = output(&[&["--dump-db"], paths].concat())?;
        closure.extend(parse(&dump).context("nix-store --dump-db printed what firn does not understand")?);
    }
    closure.sort();
    ensure!(
        closure.len() == requisites.len(),
        "nix-store registered {} of the {} paths in the closure of {path}; check the store with nix-store --verify",
        closure.len(),
        requisites.len()
    );
    Ok(closure)
}

/// The registration as nixpkgs' closureInfo writes it: nothing in it tells one build machine from another, so the derivers,
/// which may, are left out.
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
fn parse(dump: &str) -> Result<Vec<Registered>> {
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

/// Runs nix-store and returns what it prints.
fn output(arguments: &[&str]) -> Result<String> {
    let output = Command::new("nix-store").args(arguments).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::Error::new(error).context(
            "there is no nix-store on the PATH, and only Nix knows what belongs to a system; install Nix (Debian: apt install \
             nix-bin) or run this where the system was built",
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
    String::from_utf8(output.stdout).context("nix-store printed what is no UTF-8")
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
    fn a_registration_that_is_cut_short_is_an_error() {
        for cut in 1..DUMP.lines().count() {
            let text: Vec<_> = DUMP.lines().take(cut).collect();
            assert_eq!(parse(&text.join("\n")).is_err(), cut != 7, "{cut}");
        }
    }
}
