//! The store images: file systems whose root is the store.

mod cache;
pub mod divide;
mod erofs;
pub mod images;
pub mod layer;
pub mod layers;
pub mod packing;
pub mod ready;
mod recipe;
mod squashfs;
