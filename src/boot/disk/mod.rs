//! A root on a disk.

mod child;
mod devices;
pub mod owner;
pub mod persistence;
pub mod space;
mod tag;
mod wait;
