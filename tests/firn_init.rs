//! firn-init as a normal program: it answers two options and changes nothing.

use std::fs;
use std::process::{Command, Output};

fn firn_init(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_firn-init")).args(arguments).output().unwrap()
}

#[test]
fn it_says_what_it_is() {
    let output = firn_init(&[]);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("Run as a normal program, it only answers"), "{text}");

    let output = firn_init(&["--version"]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("firn-init {} (plans of format 4)\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn it_checks_plans() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plan.json");
    let check = || firn_init(&["--check-plan", file.to_str().unwrap()]);

    let good = r#"{"version": 4, "firn": "x", "kernel_release": "6.9", "init": "/x/init", "modules": [],
                   "images": [{"path": "/nix-store.squashfs", "bytes": 1, "sha256": "00"}]}"#;
    fs::write(&file, good).unwrap();
    let output = check();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("plan.json is for the kernel 6.9 and starts /x/init\n"), "{text}");

    fs::write(&file, good.replace("\"version\": 4", "\"version\": 5")).unwrap();
    let output = check();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("firn x made this plan in format 5"), "{text}");
}
