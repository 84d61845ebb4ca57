//! The store images before they are mounted.

pub mod find;
mod retained;
