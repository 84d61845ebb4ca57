//! A root on a disk.

mod devices;
pub mod owner;
pub mod persistence;
pub mod space;
mod tag;
mod wait;
