//! The store images: file systems whose root is the store.

pub mod divide;
mod erofs;
pub mod images;
pub mod layers;
pub mod packing;
pub mod ready;
mod squashfs;
