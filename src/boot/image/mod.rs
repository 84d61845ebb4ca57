//! A store image before it is mounted: locate, verify, recognize.

pub mod expected;
pub mod locate;
pub mod recognize;
mod retained;
mod sentences;
pub mod verify;
