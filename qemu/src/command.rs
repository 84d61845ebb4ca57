//! A command for a person to repeat.

use std::process::Command;

/// Prints a command on standard error in a form that can be pasted into a shell.
pub fn print(command: &Command) {
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    // A NUL has no form in a shell, and no argument contains one.
    if let Ok(line) = shlex::try_join(words.iter().map(AsRef::as_ref)) {
        eprintln!("{line}");
    }
}
