//! The suite itself: `initrd-tests/README.md` names every program of tests, and each slow test is one that `initrd-tests/run --all` runs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The marks of the tests that `initrd-tests/run --all` also runs, and of those of `by_hand.rs`, which only their own script runs.
const SLOW: &str = "#[ignore = \"slow: run by initrd-tests/run --all\"]";
const BY_HAND: &str = "#[ignore = \"by hand: run by initrd-tests/kernels/run\"]";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The paths in a directory, relative to the repository.
fn inside(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(top().join(directory)).unwrap();
    entries.map(|entry| format!("{directory}/{}", entry.unwrap().file_name().to_str().unwrap())).collect()
}

/// All Rust files in a directory and those below it.
fn sources(directory: &str) -> Vec<String> {
    let below = |path: String| if top().join(&path).is_dir() { sources(&path) } else { vec![path] };
    let mut files: Vec<_> = inside(directory).into_iter().flat_map(below).collect();
    files.retain(|file| Path::new(file).extension() == Some(OsStr::new("rs")));
    files
}

#[test]
fn b_11_the_readme_names_every_program_of_tests() {
    let readme = fs::read_to_string(top().join("initrd-tests/README.md")).unwrap();
    // A directory is one program if it has a main.rs. The others belong to several programs.
    let is_program = |path: &String| {
        let path = top().join(path);
        path.extension() == Some(OsStr::new("rs")) || path.join("main.rs").exists()
    };
    let programs: Vec<_> = inside("tests").into_iter().chain(inside("initrd-tests/tests")).filter(is_program).collect();
    assert!(programs.len() > 5, "{programs:?}");
    for program in programs {
        assert!(readme.contains(&format!("`{program}")), "initrd-tests/README.md does not name {program}: add a row");
    }
}

#[test]
fn b_11_every_slow_test_has_the_mark() {
    let mut files = Vec::new();
    for directory in ["src", "tests", "qemu/src", "initrd-tests/src", "initrd-tests/tests"] {
        files.extend(sources(directory));
    }
    assert!(files.len() > 100, "{files:?}");
    for file in files {
        let mark = if file.ends_with("by_hand.rs") { BY_HAND } else { SLOW };
        for line in fs::read_to_string(top().join(&file)).unwrap().lines().map(str::trim) {
            assert!(!line.starts_with("#[ignore") || line == mark, "{file}: {line}; the mark is {mark}");
        }
    }
}

#[test]
fn b_11_the_suite_takes_one_option() {
    for arguments in [&["--al"][..], &["--all", "boot"]] {
        let output = Command::new(top().join("initrd-tests/run")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(output.stderr, b"usage: initrd-tests/run [--all]\n");
    }
}
