//! The Nix database of this machine: the closure of a system, and the registration of each of its paths.

use crate::formats::registration::{self, Registered};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

/// How many store paths one command line gets: those of a whole closure can be too long for it.
const PATHS_AT_ONCE: usize = 1000;

/// The closure of some store paths, with themselves, sorted by path.
///
/// # Errors
///
/// No Nix on this machine, a path that is not valid in its database, or a Nix that fails.
pub fn closure(paths: &[PathBuf]) -> Result<Vec<Registered>> {
    let paths: Option<Vec<_>> = paths.iter().map(|path| path.to_str()).collect();
    let paths = paths.context("a store path is not UTF-8")?;
    let all = paths.join(" and ");
    let requisites = output(&[&["--query", "--requisites"], paths.as_slice()].concat()).map_err(|error| {
        // "path … is not valid" is the only failure that a build or a copy mends.
        if error.to_string().contains("is not valid") {
            error.context(format!(
                "Nix does not know the closure of {all}; build or copy it with Nix (nix-build, nix copy) first"
            ))
        } else {
            error
        }
    })?;
    // For several paths it prints their common references more than once.
    let requisites: BTreeSet<_> = requisites.lines().collect();
    let requisites: Vec<_> = requisites.into_iter().collect();
    let mut closure = Vec::new();
    for paths in requisites.chunks(PATHS_AT_ONCE) {
        let dump = output(&[&["--dump-db"], paths].concat())?;
        closure.extend(registration::parse(&dump).context("firn cannot read the output of nix-store --dump-db")?);
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

/// Runs nix-store and returns what it prints.
fn output(arguments: &[&str]) -> Result<String> {
    let output = Command::new("nix-store").args(arguments).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::Error::new(error).context(
            "there is no nix-store on the PATH, which knows the closure of a system; install Nix (Debian: apt install nix-bin) or \
             run firn where the system was built",
        ),
        _ => anyhow::Error::new(error).context(
            "cannot run the nix-store on the PATH; put a working Nix on the PATH, or give the closure with --closure-info",
        ),
    })?;
    if !output.status.success() {
        let said = without_colors(&String::from_utf8_lossy(&output.stderr));
        let said = said.trim();
        let next = if said.contains("ermission denied") {
            "; run firn as a user who may use the store (root, or with a running nix-daemon), or give the closure with --closure-info"
        } else {
            ""
        };
        bail!("nix-store {} failed: {}{next}", arguments.first().unwrap_or(&""), reason(said));
    }
    String::from_utf8(output.stdout).context("the output of nix-store is not UTF-8")
}

/// The errors that Nix prints, without its warnings, on one line.
fn reason(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("warning:"));
    lines.map(|line| line.strip_prefix("error: ").unwrap_or(line)).collect::<Vec<_>>().join(" ")
}

/// The text without the escape sequences with which Nix colors it.
fn without_colors(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    // A sequence ends with its first letter.
    for part in parts {
        plain.push_str(part.split_once(|end: char| end.is_ascii_alphabetic()).map_or("", |(_, text)| text));
    }
    plain
}

#[cfg(test)]
mod tests {
    #[test]
    fn c_12_the_errors_of_nix_have_no_colors() {
        let said = "\x1b[31;1merror:\x1b[0m path '\x1b[35;1m/nix/store/x\x1b[0m' is not valid\n";
        let plain = super::without_colors(said);
        assert_eq!(plain, "error: path '/nix/store/x' is not valid\n");
        assert_eq!(super::reason(&plain), "path '/nix/store/x' is not valid");
        assert_eq!(super::without_colors("plain\x1b[3"), "plain");
    }

    #[test]
    fn c_12_the_reason_that_nix_prints() {
        let said = "warning: the group 'nixbld' does not exist\nerror: path '/nix/store/x'\n       is not valid\n";
        assert_eq!(super::reason(said), "path '/nix/store/x' is not valid");
    }
}
