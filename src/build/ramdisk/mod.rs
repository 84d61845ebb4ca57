//! The ramdisk: firn-init and what it needs, in front of the store images.

pub mod compressor;
pub mod database;
pub mod modules;
pub mod placement;
pub mod program;
pub mod segments;
