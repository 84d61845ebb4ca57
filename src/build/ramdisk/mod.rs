//! The ramdisk: firn-init and its files, before the store images.

pub mod added;
pub mod compressor;
pub mod database;
pub mod file;
pub mod firmware;
pub mod modules;
pub mod own_files;
pub mod placement;
pub mod program;
pub mod segments;
pub mod zero_copy;
