//! The state that survives a failed attempt of the boot, so that nothing is located, loaded, hashed or mounted twice.

use crate::boot::images::Found;
use crate::boot::mounted::Mounted;
use std::collections::HashSet;

/// The results of all attempts so far.
#[derive(Default)]
pub struct Attempt {
    /// Names of the kernel modules that are loaded.
    pub modules: HashSet<String>,
    /// The store images that were located, verified and recognized.
    pub images: Vec<Found>,
    /// The mounts of the new root, made of these images.
    pub mounted: Mounted,
}

impl Attempt {
    /// Forgets what may be the cause of a failure: an image that the kernel does not mount may be in another place by then.
    pub fn after_failure(&mut self, step: &str) {
        if step == "store" {
            self.images.clear();
        }
    }
}
