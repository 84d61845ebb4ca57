//! The manifest of a directory, which may have none.

use crate::contract::manifest::{FILE, Manifest};
use anyhow::Result;
use std::path::Path;

/// Reads the manifest of a directory. None for a directory that `firn ipxe` or `firn kexec` made, which has no manifest.
///
/// # Errors
///
/// As [`Manifest::read`].
pub fn read_if_any(directory: &Path) -> Result<Option<Manifest>> {
    let has = |name: &str| directory.join(name).exists();
    let tree = !has(FILE) && has("bzImage") && (has("initrd") || has("initrd.gz"));
    if tree { Ok(None) } else { Manifest::read(directory).map(Some) }
}
