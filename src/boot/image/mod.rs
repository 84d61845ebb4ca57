//! A store image before it is mounted.

pub mod expected;
pub mod locate;
pub mod recognize;
mod retained;
mod sentences;
pub mod verify;
