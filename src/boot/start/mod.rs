//! The preparations of a system for its init: activation programs, the work of nixos-init, credentials, units and arguments for
//! systemd.

pub mod credentials;
pub mod nixos_init;
pub mod program;
pub mod systemd;
pub mod units;
