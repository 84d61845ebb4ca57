//! Boot methods: the files that each boot loader needs, made from a build directory.

pub mod build_directory;
pub mod ipxe;
pub mod kexec;
pub mod limits;
pub mod uki;
