//! The build machine, as the builder and the inspection use it: signals, progress, tools.

pub mod interrupt;
pub mod progress;
pub mod tool;
