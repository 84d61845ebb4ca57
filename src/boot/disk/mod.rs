//! A root on a disk.

mod child;
mod devices;
pub mod persistence;
mod tag;
mod wait;
