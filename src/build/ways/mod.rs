//! The ways into a machine: what a boot loader needs, made of a build.

pub mod built;
pub mod ipxe;
pub mod kexec;
pub mod uki;
