//! A store image as the plan or the command line describes it.

/// A store image that this boot mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedImage {
    /// Its absolute path in the ramdisk, or that of a block device.
    pub path: String,
    /// Size in bytes, if the plan has it.
    pub bytes: Option<u64>,
    /// SHA-256 in lowercase hexadecimal digits, if the plan has it.
    pub sha256: Option<String>,
}

impl ExpectedImage {
    /// An image of unknown size and contents, by its path in the ramdisk.
    #[must_use]
    pub fn at(path: &str) -> Self {
        Self { path: path.into(), bytes: None, sha256: None }
    }
}
