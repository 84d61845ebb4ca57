//! The output directory, and the manifest in it.

pub mod checked;
pub mod copies;
pub mod directory;
pub mod earlier;
pub mod manifest;
