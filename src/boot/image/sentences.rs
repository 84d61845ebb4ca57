//! Parts of messages on store images that are incomplete or from another build.

use crate::boot::kernel::memory;
use crate::contract::plan::MAX_UNPACKED;

/// The likely reasons why an unpacked image of `bytes` bytes, or a part of it, is missing.
pub fn incomplete(bytes: u64) -> String {
    let large = if bytes > MAX_UNPACKED { ", or it cannot unpack a file of 2 GiB or more" } else { "" };
    format!(
        "the boot loader loaded only a part of the ramdisk, or the kernel had too little memory to unpack it{large} (its log then has \
         \"Initramfs unpacking failed\"): check the ramdisk file and the download, or give the machine more memory; {}",
        memory::summary(Some(memory::needed(bytes, false)))
    )
}

/// The end of a message about an image with another size than in the plan.
pub fn of_another_build(expected: u64) -> String {
    format!(
        "the plan is for an image of {expected} bytes: they are from different builds; use the ramdisk and the image of one build"
    )
}
