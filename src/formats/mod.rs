//! Other people's formats: the bytes that kernels, boot loaders, file systems and Nix write and read. Pure: bytes in, values out, or
//! the other way round; nothing here opens a file or makes a system call.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)
)]

pub mod cmdline;
#[cfg(feature = "builder")]
pub mod compression;
#[cfg(feature = "builder")]
pub mod cpio;
pub mod digest;
pub mod disk;
#[cfg(feature = "builder")]
pub mod kernel_image;
#[cfg(feature = "builder")]
pub mod kernel_line;
#[cfg(feature = "builder")]
pub mod kernel_parameters;
#[cfg(feature = "builder")]
pub mod lz4;
pub mod magic;
pub mod module_alias;
pub mod modules;
pub mod newc;
#[cfg(feature = "builder")]
pub mod pe;
#[cfg(feature = "builder")]
pub mod printable;
#[cfg(feature = "builder")]
pub mod ramdisk;
pub mod registration;
pub mod secrets;
pub mod size;
#[cfg(feature = "builder")]
pub mod store_image;
#[cfg(feature = "builder")]
pub mod uki;
#[cfg(feature = "builder")]
pub mod window;
#[cfg(feature = "builder")]
pub mod xz;
