//! The log: lines in the kernel's ring buffer, and so on every console that its level lets them through to.

use super::rescue;
use kernlog::KernelLog;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fs;
use std::sync::Mutex;

/// Who speaks, at the front of every line.
const TARGET: &str = "firn-init";

/// Bytes of a line. The kernel refuses what is longer than its buffer, 1,024 bytes and on some kernels 48 less (`LOG_LINE_MAX`,
/// kernel/printk), and kernlog does not look at the result: such a line would vanish. Level, name and process id need 18.
const LINE: usize = 900;

/// kernlog, with one name for all modules and long messages in pieces.
struct Lines(KernelLog);

/// Messages of level warning and worse, for [`warnings`].
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What was logged as a warning or worse so far.
pub fn warnings() -> Vec<String> {
    WARNINGS.lock().map(|warnings| warnings.clone()).unwrap_or_default()
}

/// How many lines the kernel takes from a process: ten in five seconds by default, the others are dropped
/// (Documentation/admin-guide/sysctl/kernel.rst). With `printk.devkmsg=` on the command line it refuses to be told otherwise.
const LIMIT: &str = "/proc/sys/kernel/printk_devkmsg";

/// The limit on log lines as it was before the boot lifted it.
pub struct Limit(Option<String>);

/// Starts the log, without a limit. Without `/dev/kmsg` (a kernel without printk) there is none, which standard error is told.
pub fn start() -> Limit {
    let before = fs::read_to_string(LIMIT);
    let lifted = fs::write(LIMIT, "on\n");
    match KernelLog::new() {
        Ok(kernel_log) => {
            if log::set_boxed_logger(Box::new(Lines(kernel_log))).is_ok() {
                log::set_max_level(LevelFilter::Trace);
            }
        }
        Err(error) => rescue::say(&format!("{TARGET}: opening /dev/kmsg: {error}; the boot goes on without a log\n")),
    }
    if let Err(error) = lifted {
        log::warn!("Lifting the limit on log lines: {error}; some may be missing here");
    }
    Limit(before.ok())
}

impl Limit {
    /// Puts the limit back that the system expects.
    pub fn restore(self) {
        if let Some(before) = self.0
            && let Err(error) = fs::write(LIMIT, before)
        {
            log::warn!("Restoring the limit on log lines: {error}");
        }
    }
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        if record.level() <= Level::Warn
            && let Ok(mut warnings) = WARNINGS.lock()
        {
            warnings.push(text.clone());
        }
        for line in text.lines().flat_map(|line| pieces(line, LINE)) {
            self.0.log(&Record::builder().level(record.level()).target(TARGET).args(format_args!("{line}")).build());
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// `text` in pieces of at most `length` bytes, at least 4, cut between characters.
fn pieces(mut text: &str, length: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (piece, rest) = text.split_at_checked(text.floor_char_boundary(length)).unwrap_or((text, ""));
        text = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn long_lines_are_cut_between_characters() {
        for (text, length, expected) in [
            ("", 4, &[][..]),
            ("abc", 4, &["abc"]),
            ("abcdefghi", 4, &["abcd", "efgh", "i"]),
            ("aäöü", 4, &["aä", "öü"]),
            ("\u{1f9ca}\u{1f9ca}", 4, &["\u{1f9ca}", "\u{1f9ca}"]),
        ] {
            assert_eq!(pieces(text, length).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }
}
