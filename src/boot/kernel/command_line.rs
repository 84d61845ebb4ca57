//! The kernel command line of this boot.

use crate::formats::cmdline::CommandLine;

/// The command line, for messages. It is empty if `/proc/cmdline` cannot be read.
pub fn now() -> CommandLine {
    CommandLine::parse(&std::fs::read("/proc/cmdline").unwrap_or_default())
}
