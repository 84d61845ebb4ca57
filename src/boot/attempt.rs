//! The state of a boot that outlives a failed attempt: nothing is located, loaded, hashed or mounted twice.

use crate::boot::images::Found;
use std::collections::HashSet;

/// What the attempts so far have done.
#[derive(Default)]
pub struct Attempt {
    /// Names of the kernel modules that are loaded.
    pub modules: HashSet<String>,
    /// The store images that were located, verified and recognized.
    pub images: Vec<Found>,
    /// Whether the new root is there with its complete store.
    pub has_store: bool,
    /// Whether the overlay of `/etc` is mounted in it.
    pub has_etc: bool,
}
