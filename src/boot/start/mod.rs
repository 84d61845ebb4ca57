//! What a system needs before and at the exec of its init.

pub mod nixos_init;
pub mod program;
pub mod systemd;
