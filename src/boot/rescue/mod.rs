//! The end of a failed boot: the reasons, the menu, the shell.

pub mod menu;
mod shell;
