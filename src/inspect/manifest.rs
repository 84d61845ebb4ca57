//! The manifest of a directory, which may have none.

use crate::contract::manifest::{FILE, Manifest};
use anyhow::{Result, ensure};
use std::path::Path;

/// Reads the manifest of a directory. None for a directory that `firn ipxe` or `firn kexec` of firn 0.2.0 or older made, which has none.
///
/// # Errors
///
/// As [`Manifest::read`], and a manifest without files.
pub fn read_if_any(directory: &Path) -> Result<Option<Manifest>> {
    let has = |name: &str| directory.join(name).exists();
    let tree = !has(FILE) && has("bzImage") && (has("initrd") || has("initrd.gz"));
    if tree {
        return Ok(None);
    }
    let manifest = Manifest::read(directory)?;
    ensure!(!manifest.files.is_empty(), "{} lists no files; build the system again", directory.join(FILE).display());
    Ok(Some(manifest))
}
