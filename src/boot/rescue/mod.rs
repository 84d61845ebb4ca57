//! A boot that failed: the reasons, the menu, the shell.

pub mod menu;
mod shell;
