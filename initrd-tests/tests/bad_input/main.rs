//! Input that `firn build` cannot use: each error says what to do, and no file is left behind.
//!
//! The systems are store paths of a real Nix, each with one fault.

mod attempt;
mod changed;
mod command_line;
#[path = "../fake/mod.rs"]
mod fake;
mod images;
mod left_out;
mod output;
mod programs;
mod right;
mod sentences;
#[path = "../shell/mod.rs"]
mod shell;
mod store;
mod store_paths;
mod toplevel;
mod trees;
mod uki;
