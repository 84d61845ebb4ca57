//! The input of a build: the system, and the store paths that it needs.

pub mod closure;
pub mod etc_overlay;
pub mod left_out;
pub mod modprobe;
pub mod nix;
pub mod toplevel;
