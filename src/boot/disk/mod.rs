//! A root on a disk.

pub mod owner;
pub mod persistence;
pub mod space;
