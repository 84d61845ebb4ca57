//! What the builder and stage 1 agree on: the builder writes it, stage 1 reads it.

pub mod kind;
pub mod nixos_init;
pub mod parameters;
pub mod place;
pub mod plan;
pub mod release;
