//! firn: stage 1 for NixOS systems that run from memory.
//!
//! ```text
//! build   system closure ─► store image ─┐
//!         kernel modules ─► load order ──┼─► plan + ramdisk ─► netboot.ipxe | kexec tree | tarball | UKI | manifest
//!         firn-init (static) ────────────┘        │
//!                                             contract        the only part that both halves know
//!                                                 │
//! boot    kernel ─► early mounts ─► log ─► command line + plan ─► modules ─► root ─► store ─► registration ─► hand-over ─► init
//!                                             \______________________ any error: rescue _______________________/
//! ```
//!
//! The rooms, and the arrows between them: [`formats`] ◄─ [`contract`] ◄─ [`boot`], `build`, `inspect` ◄─ the programs. `host` serves
//! `build` and `inspect`.
//!
//! - [`formats`] reads and writes the formats of other projects: cpio, compression, kernel images, file systems, module lists. It makes
//!   no system calls.
//! - [`contract`] holds the agreements between the builder and stage 1: the plan, the kinds of systems, the kernel parameters.
//! - [`boot`] runs as process 1 of the initramfs, in the program `firn-init`.
//! - `build` runs on the build machine, in the program `firn`. It packs a system into the files that a machine boots.
//! - `inspect` shows the contents of builds, ramdisks and store images, made by firn or by other tools.
//! - `host` holds the services of the build machine that `build` and `inspect` share, such as progress reports.
//!
//! `boot` and `build` never use each other. `build`, `inspect` and `host` need the feature `builder`, which is on by default; `firn-init`
//! is built without it.

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
