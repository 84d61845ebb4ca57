//! The figures of a boot of the bench's system, from its report on the second serial port (`initrd-tests/system/bench.sh`): the kernel
//! log with the marks in it, and the memory at the start of the system.

use crate::steps::Steps;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A boot of the bench's system. Times are microseconds of the guest's clock: 1,000 instructions in a counted machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// From the first line of the kernel to the start of the ramdisk's init.
    pub kernel: u64,
    /// From the start of the ramdisk's init to the exec of the system's init.
    pub stage_1: u64,
    /// From the exec to the first line of the system's init.
    pub exec: u64,
    /// From the first line until the store is registered and the system profile set.
    pub registration: u64,
    /// From the registration until the files that a start needs were read.
    pub start: u64,
    /// The steps of stage 1 and their costs, if stage 1 logs them.
    pub steps: Vec<(String, u64)>,
    /// `/proc/meminfo` at the first line of the system's init, kB.
    pub memory: BTreeMap<String, u64>,
}

impl Boot {
    /// Reads a report.
    ///
    /// # Errors
    ///
    /// A report without one of the marks, or with a mark of a failure.
    pub fn from_report(report: &str) -> Result<Self> {
        let log: Vec<_> = report.lines().filter_map(line).collect();
        let at = |what: &str, found: &dyn Fn(&str) -> bool| {
            log.iter().find(|(_, text)| found(text)).map(|(time, _)| *time).with_context(|| format!("no mark: {what}"))
        };
        let mark = |name: &str| at(name, &|text| text.strip_prefix("bench: ") == Some(name));
        if let Some((_, text)) = log.iter().find(|(_, text)| text.starts_with("bench: ") && text.contains("failed")) {
            anyhow::bail!("{text}");
        }
        let init = at("the start of init", &|text| text.starts_with("Run ") && text.ends_with(" as init process"))?;
        let exec = mark("exec").or_else(|_| {
            at("the exec of the system's init", &|text| text.starts_with("firn-init") && text.contains(": Executing "))
        })?;
        let [first, registered, started] = [mark("first line")?, mark("registered")?, mark("started")?];
        mark("valid")?;

        let steps = Steps::from_log(log.iter().copied()).map_or_else(|_| marked_steps(&log, init), |found| found.steps);
        let memory = report.lines().filter_map(|line| meminfo(line.strip_prefix("meminfo ")?)).collect();
        Ok(Self {
            kernel: init,
            stage_1: exec.saturating_sub(init),
            exec: first.saturating_sub(exec),
            registration: registered.saturating_sub(first),
            start: started.saturating_sub(registered),
            steps,
            memory,
        })
    }

    /// The time from the first line of the kernel to a registered system, no matter whether stage 1 or the system registers the store.
    #[must_use]
    pub fn registered(&self) -> u64 {
        self.kernel + self.stage_1 + self.exec + self.registration
    }
}

/// The steps of another stage 1, which marks the end of each: `bench: step modules`.
fn marked_steps(log: &[(u64, &str)], mut since: u64) -> Vec<(String, u64)> {
    let steps = log.iter().filter_map(|(time, text)| Some((text.strip_prefix("bench: step ")?, *time)));
    let step = |(name, time)| (str::to_owned(name), time - std::mem::replace(&mut since, time));
    steps.map(step).collect()
}

/// Reads a line of dmesg(1): `[    2.071234] text`.
fn line(line: &str) -> Option<(u64, &str)> {
    let (time, text) = line.trim_end().strip_prefix('[')?.split_once("] ")?;
    let (seconds, microseconds) = time.trim().split_once('.')?;
    Some((seconds.parse::<u64>().ok()? * 1_000_000 + microseconds.parse::<u64>().ok()?, text))
}

/// Reads a line of `/proc/meminfo`: `Slab:             12345 kB`.
fn meminfo(line: &str) -> Option<(String, u64)> {
    let (name, rest) = line.split_once(':')?;
    Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: &str = "[    0.000000] Linux version 6.1\r
[    2.000000] Run /init as init process\r
[    2.001000] bench: step early mounts\r
[    2.021000] bench: step modules\r
[    2.033000] bench: exec\r
[    2.143000] bench: first line\r
[    3.943000] bench: registered\r
[    4.943000] bench: started\r
[    5.943000] bench: valid\r
meminfo Slab:             12345 kB\r
";

    #[test]
    fn the_marks_divide_a_report() {
        let boot = Boot::from_report(FLOOR).unwrap();
        assert_eq!([boot.kernel, boot.stage_1, boot.exec, boot.registration], [2_000_000, 33_000, 110_000, 1_800_000]);
        assert_eq!((boot.registered(), boot.start), (3_943_000, 1_000_000));
        assert_eq!(boot.steps, [("early mounts".to_owned(), 1_000), ("modules".to_owned(), 20_000)]);
        assert_eq!(boot.memory["Slab"], 12345);
    }

    #[test]
    fn the_exec_of_firn_init_counts_as_a_mark() {
        let firn = FLOOR.replace("bench: exec", "firn-init[1]: Executing /nix/store/x/init");
        assert_eq!(Boot::from_report(&firn).unwrap().stage_1, 33_000);
    }

    #[test]
    fn a_missing_mark_and_a_failure_are_errors() {
        let error = |report: &str| Boot::from_report(report).unwrap_err().to_string();
        assert!(error(&FLOOR.replace("bench: valid", "")).contains("valid"));
        assert!(error(&FLOOR.replace("bench: started", "bench: reading failed")).contains("reading failed"));
    }
}
