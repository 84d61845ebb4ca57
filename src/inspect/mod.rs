//! Eyes: what is in a ramdisk, a store image, a kernel or a whole build, whoever made it.
//!
//! Nothing here makes what a machine boots, and nothing here believes what made it: the formats are read as the kernel reads
//! them, to the end, and what does not fit is an error with its place.

pub mod difference;
pub mod machine;
pub mod manifest;
pub mod ramdisk;
pub mod store;
pub mod summary;
pub mod unpack;
pub mod verify;
