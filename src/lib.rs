//! firn: stage 1 for NixOS systems that run from memory.
//!
//! ```text
//! build   system closure ─► store image ─┐
//!         kernel modules ─► load order ──┼─► plan + ramdisk ─► netboot.ipxe, manifest.json ─► iPXE, kexec, UKI
//!         firn-init (static) ────────────┘        │
//!                                              [`plan`]
//!                                                 │
//! boot    kernel ─► early mounts ─► log ─► command line + plan ─► modules ─► root ─► store ─► registration ─► hand-over
//! ```
//!
//! [`image`] runs on the build machine and makes what a machine boots; [`boot`] runs there as PID 1 of the initramfs.
//! Neither uses the other. What both must agree on is in [`plan`] (the file that one writes and the other reads),
//! [`modules`] (which kernel module needs which), [`kind`] and [`nixos_init`] (how a system wants to be started);
//! `digest` takes checksums for both, `magic` tells store images from other files, [`newc`] reads the headers of a ramdisk, and
//! [`release`] the version of a kernel. [`inspect`] looks into what was made, by
//! firn or by others.

pub mod boot;
#[cfg(feature = "builder")]
pub mod build;
pub mod contract;
pub mod formats;
#[cfg(feature = "builder")]
pub mod host;
#[cfg(feature = "builder")]
pub mod inspect;
#[cfg(test)]
mod testing;
