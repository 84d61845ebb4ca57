//! A root on a disk.

pub mod persistence;
