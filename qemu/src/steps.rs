//! The cost of each step of stage 1, read from the kernel log of a boot.
//!
//! In a counted machine the log's clock counts instructions: 1 s of it is 1 Gi, 10⁹ of them.

use anyhow::{Context, Result};
use std::fmt;

/// The steps of a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    /// Name and cost (microseconds, or 1,000 instructions) of each step, in order.
    pub steps: Vec<(String, u64)>,
    /// The time from the start of firn-init to the exec of the system's init, microseconds.
    pub total: u64,
}

impl Steps {
    /// Finds the steps in a kernel log, given as lines with their times in microseconds. The first step begins when the kernel starts
    /// firn-init, and each later one when the step before it is done.
    ///
    /// # Errors
    ///
    /// A log without the start or the end of stage 1.
    pub fn from_log<'a>(lines: impl IntoIterator<Item = (u64, &'a str)>) -> Result<Self> {
        let mut lines = lines.into_iter();
        let (start, _) = lines
            .find(|(_, text)| text.starts_with("Run ") && text.ends_with(" as init process"))
            .context("the kernel log has no line \"Run /init as init process\"; was its beginning overwritten?")?;
        let mut steps = Vec::new();
        let mut since = start;
        for (time, text) in lines {
            let Some(message) = of_firn_init(text) else { continue };
            if message.starts_with("Executing ") {
                return Ok(Self { steps, total: time.saturating_sub(start) });
            }
            if let Some((name, _)) = message.split_once(": done in ") {
                steps.push((name.to_owned(), time.saturating_sub(since)));
                since = time;
            }
        }
        anyhow::bail!("the kernel log has no line \"firn-init: Executing …\" after \"Run /init as init process\"")
    }

    /// The cost of one step, microseconds; 0 without a step of this name.
    #[must_use]
    pub fn cost(&self, name: &str) -> u64 {
        self.steps.iter().filter(|(step, _)| step == name).map(|(_, cost)| cost).sum()
    }
}

/// The message of a line that firn-init wrote: `firn-init: MESSAGE` or `firn-init[PID]: MESSAGE`.
fn of_firn_init(text: &str) -> Option<&str> {
    let (speaker, message) = text.split_once(": ")?;
    let name = speaker.split_once('[').map_or(speaker, |(name, _)| name);
    (name == "firn-init").then_some(message)
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Gi (10^9 instructions)")?;
        for (name, cost) in &self.steps {
            writeln!(f, "{}", line(*cost, name))?;
        }
        writeln!(f, "{}", line(self.total, "total, from the start of firn-init to the exec of the system's init"))
    }
}

/// A line of the table. A microsecond of the counted clock is a millionth of a Gi.
#[must_use]
pub fn line(cost: u64, name: &str) -> String {
    format!("{}.{:06}  {name}", cost / 1_000_000, cost % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [(u64, &str); 9] = [
        (10, "firn-init: root: done in 1.0 ms"),
        (2_000_000, "Run /init as init process"),
        (2_000_500, "  with arguments:"),
        (2_003_000, "firn-init[1]: early mounts: done in 1.234 ms"),
        (2_004_000, "firn-init[1]: Mounting mount -t tmpfs tmpfs /mnt-root"),
        (2_010_000, "loop0: detected capacity change from 0 to 8"),
        (2_013_000, "firn-init: store: done in 9.9 ms"),
        (3_013_000, "firn-init[1]: registration: done in 1000.000 ms"),
        (3_014_000, "firn-init[1]: Executing /nix/store/x/init"),
    ];

    #[test]
    fn steps_reach_from_one_line_to_the_next() {
        let steps = Steps::from_log(LOG).unwrap();
        let expected = [("early mounts", 3_000), ("store", 10_000), ("registration", 1_000_000)];
        assert_eq!(steps.steps, expected.map(|(name, cost)| (name.to_owned(), cost)));
        assert_eq!(steps.total, 1_014_000);
        assert_eq!((steps.cost("store"), steps.cost("no such step")), (10_000, 0));
    }

    #[test]
    fn a_stage_1_without_beginning_or_end_is_an_error() {
        let error = Steps::from_log(LOG[2..].iter().copied()).unwrap_err().to_string();
        assert!(error.contains("Run /init"), "{error}");
        let error = Steps::from_log(LOG[..8].iter().copied()).unwrap_err().to_string();
        assert!(error.contains("Executing"), "{error}");
    }

    #[test]
    fn only_firn_init_speaks_for_itself() {
        for (text, expected) in [
            ("firn-init: a: b", Some("a: b")),
            ("firn-init[1]: a", Some("a")),
            ("firn-initial: a", None),
            ("systemd[1]: firn-init: a", None),
            ("firn-init", None),
        ] {
            assert_eq!(of_firn_init(text), expected, "{text:?}");
        }
    }
}
