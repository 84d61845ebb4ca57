//! The log: lines in the kernel's ring buffer. The kernel shows them on the consoles, depending on its log level.

use crate::boot::console::consoles;
use kernlog::KernelLog;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

/// The name at the start of every line.
const TARGET: &str = "firn-init";

/// The maximum length of a line, bytes. The kernel refuses a line that is longer than its buffer: 1,024 bytes, on some kernels 48 bytes
/// less (`LOG_LINE_MAX`, kernel/printk). kernlog ignores the error, so the line would be lost. Level, name and process id need 18 bytes.
const LINE: usize = 900;

/// kernlog, with one name for all modules and with long messages cut into pieces.
struct Lines(KernelLog);

/// The messages of level warning or worse, for [`warnings`].
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The messages of level warning or worse so far, oldest first.
pub fn warnings() -> Vec<String> {
    WARNINGS.lock().map(|warnings| warnings.clone()).unwrap_or_default()
}

/// Keeps a message for [`warnings`] that the log has no room for: the kernel's buffer also has its own messages, and drops the oldest.
pub fn keep_warning(text: &str) {
    if let Ok(mut warnings) = WARNINGS.lock() {
        warnings.push(text.to_owned());
    }
}

/// The kernel's limit on log lines from processes. By default it drops lines beyond ten in five seconds
/// (Documentation/admin-guide/sysctl/kernel.rst). With `printk.devkmsg=` on the command line, the kernel refuses a change of this setting.
const LIMIT: &str = "/proc/sys/kernel/printk_devkmsg";

/// Four log levels. The first one decides which lines reach the consoles (`man 2 syslog`).
const LEVELS: &str = "/proc/sys/kernel/printk";

/// The kernel's settings before stage 1 changed them, by path, for [`restore`].
static BEFORE: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());

/// Starts the log and lifts the limit on its lines. Without `/dev/kmsg` (a kernel without printk) there is no log, and the consoles show
/// this.
pub fn start() {
    let lifted = set(LIMIT, "on\n");
    match KernelLog::new() {
        Ok(kernel_log) => {
            if log::set_boxed_logger(Box::new(Lines(kernel_log))).is_ok() {
                log::set_max_level(LevelFilter::Trace);
            }
        }
        Err(error) => consoles::say(&format!("{TARGET}: opening /dev/kmsg: {error}; the boot goes on without a log\n")),
    }
    if let Err(error) = lifted {
        log::warn!("Lifting the kernel's limit on log lines: {error}; this log may lack some lines of stage 1");
    }
}

/// Shows every line of the log on every console.
pub fn show_all() {
    if let Err(error) = set(LEVELS, "8\n") {
        log::warn!("Showing the whole log on the consoles: {error}; read it with dmesg");
    }
}

/// Restores the kernel's settings for the running system.
pub fn restore() {
    let before = BEFORE.lock().map(|mut before| std::mem::take(&mut *before)).unwrap_or_default();
    for (path, value) in before {
        if let Err(error) = fs::write(path, value) {
            log::warn!("Restoring {path}: {error}");
        }
    }
}

/// Changes a setting of the kernel, by its path, until [`restore`].
///
/// # Errors
///
/// The setting cannot be read or written.
pub fn set(path: &'static str, value: &str) -> std::io::Result<()> {
    let before = fs::read_to_string(path)?;
    fs::write(path, value)?;
    if let Ok(mut all) = BEFORE.lock()
        && all.iter().all(|(changed, _)| *changed != path)
    {
        all.push((path, before));
    }
    Ok(())
}

/// The kernel's own messages of level error or worse, oldest first.
pub fn kernel_errors() -> Vec<String> {
    let mut errors = Vec::new();
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg");
    let Ok(mut kmsg) = opened else { return errors };
    let mut record = [0; 8192];
    loop {
        // Each read returns one record (Documentation/ABI/testing/dev-kmsg).
        match kmsg.read(&mut record) {
            Ok(length) => {
                errors.extend(kernel_error(&String::from_utf8_lossy(record.get(..length).unwrap_or_default())));
            }
            // The record was overwritten. The next read returns the oldest record that is left.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => return errors,
        }
    }
}

/// The text of a record, `PRIORITY,…;TEXT`, if it is the kernel's own (facility 0) and an error (level 3) or worse.
fn kernel_error(record: &str) -> Option<String> {
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    (priority <= 3).then(|| text.lines().next().unwrap_or_default().to_owned())
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        if record.level() <= Level::Warn {
            keep_warning(&text);
        }
        for line in text.lines().flat_map(|line| pieces(line, LINE)) {
            self.0.log(&Record::builder().level(record.level()).target(TARGET).args(format_args!("{line}")).build());
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Cuts `text` between characters into pieces of at most `length` bytes. `length` is at least 4.
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
    use super::{kernel_error, pieces, restore, set};
    use std::fs;

    #[test]
    fn settings_of_the_kernel_are_restored() {
        let setting = tempfile::NamedTempFile::new().unwrap();
        fs::write(&setting, "4 4 1 7").unwrap();
        let path: &'static str = Box::leak(setting.path().to_str().unwrap().to_owned().into_boxed_str());
        let value = || fs::read_to_string(path).unwrap();
        set(path, "8").unwrap();
        set(path, "7").unwrap();
        assert_eq!(value(), "7");
        restore();
        assert_eq!(value(), "4 4 1 7");
    }

    #[test]
    fn errors_of_the_kernel() {
        for (record, expected) in [
            ("3,339,5140900,-;SQUASHFS error: zlib failed\n SUBSYSTEM=block\n", Some("SQUASHFS error: zlib failed")),
            ("0,1,2,-;Initramfs unpacking failed: write error\n", Some("Initramfs unpacking failed: write error")),
            ("4,1,2,-;only a warning\n", None),
            // Facility 1 (user): a process wrote it into /dev/kmsg.
            ("11,1,2,-;firn-init[1]: an error\n", None),
            ("a line without its prefix\n", None),
            (";", None),
        ] {
            assert_eq!(kernel_error(record).as_deref(), expected, "{record:?}");
        }
    }

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
