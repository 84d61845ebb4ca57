//! The build machine, for the builder and the inspection: signals, progress, other programs.

pub mod interrupt;
pub mod progress;
pub mod tool;
