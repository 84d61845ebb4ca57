//! The preparations of a system for its init: activation programs, the work of nixos-init, arguments for systemd.

pub mod nixos_init;
pub mod program;
pub mod systemd;
