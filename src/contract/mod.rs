//! The contract between the builder and stage 1: the builder writes it, stage 1 reads it.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)
)]

#[cfg(feature = "builder")]
pub mod file_name;
pub mod kind;
#[cfg(feature = "builder")]
pub mod manifest;
pub mod nixos_init;
pub mod parameters;
pub mod place;
pub mod plan;
pub mod release;
