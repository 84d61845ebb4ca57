//! Looks into ramdisks, store images, kernels and whole builds, made by firn or by other programs.
//!
//! Nothing here makes a file that a machine boots, and nothing here trusts the program that made one: the formats are read as the
//! kernel reads them, to the end, and each error names its place.

pub mod difference;
pub mod manifest;
pub mod names;
pub mod ramdisk;
pub mod store;
pub mod summary;
pub mod uki;
pub mod unpack;
pub mod verify;
