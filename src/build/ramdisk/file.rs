//! A file of the ramdisk, as the other files here make it for the segment of firn.

/// A file for the ramdisk.
#[derive(Debug)]
pub struct RamdiskFile {
    /// Its absolute path in the ramdisk.
    pub path: String,
    /// Its contents.
    pub contents: Vec<u8>,
}
