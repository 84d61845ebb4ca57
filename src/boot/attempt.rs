//! The state that survives a failed attempt of the boot, so that nothing is located, loaded, hashed or mounted twice.

use crate::boot::images::Found;
use std::collections::HashSet;

/// The results of all attempts so far.
#[derive(Default)]
pub struct Attempt {
    /// Names of the kernel modules that are loaded.
    pub modules: HashSet<String>,
    /// The store images that were located, verified and recognized.
    pub images: Vec<Found>,
    /// Whether the new root is mounted with its complete store.
    pub has_store: bool,
    /// Whether the overlay for `/etc` is mounted in the new root.
    pub has_etc: bool,
}
