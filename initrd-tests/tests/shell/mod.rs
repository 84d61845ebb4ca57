//! Scripts that run `firn`.

use std::env;
use std::path::Path;
use std::process::{Command, Output};

/// A shell in a directory, with `firn` as the program to test and `$system` as a system.
pub fn bash(directory: &Path, system: &Path, script: &str) -> Command {
    // Cargo builds it for the tests of its package, next to the directory of this test.
    let firn = env::current_exe().unwrap().parent().unwrap().with_file_name("firn");
    // The suite may run under nohup(1), whose programs keep on ignoring a hangup.
    let mut bash = Command::new("env");
    bash.args(["--default-signal=HUP", "bash", "-euc", &format!("firn() {{ $program \"$@\"; }}\n{script}")])
        .current_dir(directory);
    bash.env("system", system).env("program", firn);
    assert!(env::var_os("FIRN_INIT").is_some(), "start the tests with ./initrd-tests/run");
    bash
}

/// Runs a command that must not fail.
pub fn succeeds(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
