//! The registration of store paths: the text that `nix-store --dump-db` prints and `nix-store --load-db` reads. nixpkgs' closureInfo
//! and `lib/make-squashfs.nix` write the same.
//!
//! Per path it has the lines path, hash, size, deriver (may be empty), number of references, and then the references.

use crate::formats::digest::sha256;
use anyhow::{Context, Result, ensure};

/// A store path with its registration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registered {
    /// The store path.
    pub path: String,
    /// SHA-256 of its NAR, as Nix prints it.
    pub nar_hash: String,
    /// Size of its NAR, bytes.
    pub nar_size: u64,
    /// The store paths it refers to, itself among them if it does; sorted.
    pub references: Vec<String>,
}

/// The lines of one path in a registration, as far as they are there.
struct Entry<'a> {
    path: &'a str,
    /// Hash, size, deriver and number of references.
    fields: Vec<&'a str>,
    /// As many as the number says, or fewer at the end of the text.
    references: Vec<&'a str>,
}

fn entries(text: &str) -> Vec<Entry<'_>> {
    // Not `lines`, which takes a carriage return away. Nix keeps it (`getLine` in its `libstore`).
    let (mut lines, mut entries) = (text.split_terminator('\n'), Vec::new());
    while let Some(path) = lines.next() {
        let fields: Vec<_> = lines.by_ref().take(4).collect();
        let count = fields.get(3).and_then(|count| count.parse().ok()).unwrap_or_default();
        entries.push(Entry { path, fields, references: lines.by_ref().take(count).collect() });
    }
    entries
}

/// Reads a registration. The derivers are left out: they may tell one build machine from another.
///
/// # Errors
///
/// Text that ends early, or a size or a number of references that is no number.
pub fn parse(text: &str) -> Result<Vec<Registered>> {
    let registered = |Entry { path, fields, references }: Entry| {
        let cut = || format!("the registration of {path} is cut short");
        let [nar_hash, nar_size, _deriver, count] = fields.try_into().ok().with_context(cut)?;
        let nar_size = nar_size.parse().with_context(|| format!("the NAR size of {path} in the registration"))?;
        let count: usize =
            count.parse().with_context(|| format!("the number of references of {path} in the registration"))?;
        ensure!(references.len() == count, cut());
        let mut references: Vec<_> = references.into_iter().map(Into::into).collect();
        references.sort();
        Ok(Registered { path: path.into(), nar_hash: nar_hash.into(), nar_size, references })
    };
    entries(text).into_iter().map(registered).collect()
}

/// The paths of a registration that no other path in it refers to, in its order. Text that [`parse`] refuses counts as far as it can be
/// read.
#[must_use]
pub fn unreferenced(text: &str) -> Vec<String> {
    let (mut paths, mut references) = (Vec::<String>::new(), Vec::<String>::new());
    for Entry { path, references: all, .. } in entries(text) {
        paths.push(path.into());
        references.extend(all.into_iter().filter(|reference| *reference != path).map(Into::into));
    }
    references.sort();
    paths.retain(|path| references.binary_search(path).is_err());
    paths
}

/// Writes a registration as nixpkgs' closureInfo does, without derivers.
#[must_use]
pub fn write(paths: &[Registered]) -> String {
    let no_deriver = String::new();
    let lines = paths.iter().flat_map(|path| {
        let (size, count) = (path.nar_size.to_string(), path.references.len().to_string());
        [path.path.clone(), path.nar_hash.clone(), size, no_deriver.clone(), count]
            .into_iter()
            .chain(path.references.iter().cloned())
    });
    lines.map(|line| line + "\n").collect()
}

/// The hash for a path whose references are not all registered, made from its own: wrong on purpose, so that Nix does not copy the path as
/// a whole one (`nix copy`, `nix-store --export` and an import compare the hash; builds, roots and the garbage collector do not).
/// Nix prints it as `sha256:1zzzz…`. It is not all zeros, which Nix takes for a hash to be filled in (`verifyStore` in its
/// `libstore/local-store.cc`).
///
/// # Errors
///
/// Those of [`sha256`].
pub fn cut(nar_hash: &str) -> Result<String> {
    let (_, digits) = sha256(nar_hash.as_bytes())?;
    let digits: String = digits.chars().take(40).collect();
    Ok(format!("sha256:{digits}{}", "f".repeat(24)))
}

/// Whether this is the hash of a NAR as `nix-store --load-db` reads it: SHA-256 in 52 of Nix' letters or in 64 hexadecimal
/// digits, with or without `sha256:` before them, or as an SRI hash.
#[must_use]
pub fn is_nar_hash(text: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "/nix/store/b\nsha256:1\n120\n/nix/store/b.drv\n2\n/nix/store/b\n/nix/store/a\n\
        /nix/store/a\nsha256:2\n80\n\n0\n";

    #[test]
    fn registrations_lose_their_derivers_and_nothing_else() {
        let paths = parse(DUMP).unwrap();
        assert_eq!(paths[0].references, ["/nix/store/a", "/nix/store/b"]);
        assert_eq!(
            write(&paths),
            "/nix/store/b\nsha256:1\n120\n\n2\n/nix/store/a\n/nix/store/b\n/nix/store/a\nsha256:2\n80\n\n0\n"
        );
        assert_eq!(parse(&write(&paths)).unwrap(), paths);
        let reference = parse("/nix/store/b\nsha256:1\n1\n\n1\n/nix/store/a\r\r\n").unwrap();
        assert_eq!(reference[0].references, ["/nix/store/a\r\r"]);
        assert_eq!(parse(&write(&reference)).unwrap(), reference);
    }

    #[test]
    fn b_5_paths_that_no_other_path_refers_to() {
        assert_eq!(unreferenced(DUMP), ["/nix/store/b"]);
        let two = format!("{DUMP}/nix/store/c\nsha256:3\n1\n\n1\n/nix/store/a\n");
        assert_eq!(unreferenced(&two), ["/nix/store/b", "/nix/store/c"]);
        assert_eq!(unreferenced(""), [""; 0]);
        for text in
            ["/nix/store/b\n", "/nix/store/b\nsha256:1\n1\n\nx\n", "/nix/store/b\nsha256:1\n1\n\n99999999999\n/x"]
        {
            assert_eq!(unreferenced(text), ["/nix/store/b"]);
        }
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
            assert_eq!(is_nar_hash(text), expected, "{text}");
        }
    }

    #[test]
    fn a_registration_that_is_cut_short_is_an_error() {
        for cut in 1..DUMP.lines().count() {
            let text: Vec<_> = DUMP.lines().take(cut).collect();
            assert_eq!(parse(&text.join("\n")).is_err(), cut != 7, "{cut}");
        }
    }

    #[test]
    fn errors_name_the_path() {
        for (text, expected) in [
            ("/nix/store/b\nsha256:1\n", "cut short"),
            ("/nix/store/b\nsha256:1\nx\n\n0\n", "the NAR size of /nix/store/b"),
            ("/nix/store/b\nsha256:1\n1\n\nx\n", "the number of references of /nix/store/b"),
            ("/nix/store/b\nsha256:1\n1\n\n99999999999\n", "cut short"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
