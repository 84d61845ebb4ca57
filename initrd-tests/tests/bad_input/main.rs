//! Input that `firn build` cannot use: each error says what to do, and no file is left behind.
//!
//! The systems are store paths of a real Nix, each with one fault.

mod attempt;
#[path = "../fake/mod.rs"]
mod fake;
mod left_out;
mod output;
mod programs;
mod right;
mod store;
mod toplevel;
