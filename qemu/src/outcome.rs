//! The result of a machine that ran.

/// The number of lines of [`Outcome::last_words`].
const LAST_LINES: usize = 30;

/// The end of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest switched the machine off, or rebooted.
    Ended,
    /// The machine still ran at its time limit.
    TimedOut,
}

/// The result of a machine that ran.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The output of the first serial port.
    pub console: String,
    /// The output of the second serial port.
    pub report: Vec<u8>,
    /// How the machine ended.
    pub exit: Exit,
}

impl Outcome {
    /// The last 30 lines of the console, for the error message of a boot that failed.
    #[must_use]
    pub fn last_words(&self) -> &str {
        let text = self.console.trim_end();
        text.rmatch_indices('\n').nth(LAST_LINES - 1).map_or(text, |(newline, _)| &text[newline + 1..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_lines_from_the_end() {
        let said = |console: String| Outcome { console, report: Vec::new(), exit: Exit::Ended }.last_words().to_owned();
        assert_eq!(said("one\ntwo\n".into()), "one\ntwo");
        let many: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(said(many.join("\n") + "\n\n"), many[100 - LAST_LINES..].join("\n"));
    }
}
