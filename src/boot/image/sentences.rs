//! Sentences on store images that did not arrive whole.

use crate::boot::kernel::memory;
use crate::contract::plan::MAX_UNPACKED;

/// The likely reasons why an unpacked image is missing, or a part of it.
pub fn not_whole(bytes: u64) -> String {
    let large = if bytes > MAX_UNPACKED { ", or unpacks at most 2 GiB of one file" } else { "" };
    format!(
        "the boot loader handed over a part of the ramdisk, or the kernel had no memory to unpack all of it{large} (\"Initramfs \
         unpacking failed\" in its log): check the ramdisk that the machine loads, or give it more memory; {}",
        memory::sentence(Some(memory::needed(bytes, false)))
    )
}

/// The end of a sentence about an image with another size than the plan's.
pub fn of_another_build(expected: u64) -> String {
    format!("the plan is for one of {expected} bytes: they are of different builds; take both from one build")
}
