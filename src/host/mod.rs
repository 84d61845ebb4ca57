//! The build machine, for the builder and the inspection: signals, progress, other programs, output directories.

pub mod directory_lock;
pub mod file;
pub mod generation;
pub mod interrupt;
pub mod progress;
pub mod publication;
pub mod replace;
pub mod staging;
pub mod tool;
