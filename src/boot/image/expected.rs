//! A store image as the plan or the command line describes it.

use crate::contract::place::Place;

/// A store image that this boot mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where it is.
    pub place: Place,
    /// Size in bytes, if the builder wrote it down.
    pub bytes: Option<u64>,
    /// SHA-256 in hexadecimal digits, if the builder wrote it down.
    pub sha256: Option<String>,
}

impl Image {
    /// An image of unknown contents.
    #[must_use]
    pub fn at(path: &str) -> Self {
        Self { place: Place::of_path(path), bytes: None, sha256: None }
    }
}
