//! Where stage 1 finds the store images: in the initramfs, copied by the kernel; or in memory where the boot loader put them
//! (zero copy). The ramdisk is the same for both, and boots with any command line; for zero copy the build has one more file, which
//! firn's own boot files use ([`ZERO_COPY`](crate::contract::place::ZERO_COPY)).

use crate::contract::release::at_least;
use anyhow::{Result, ensure};
use clap::ValueEnum;

/// The first kernel that keeps the ramdisk readable, as `/sys/firmware/initrd`: 6.8 (`do_populate_rootfs`, init/initramfs.c).
const RETAINS: (u32, u32) = (6, 8);

/// Where stage 1 finds the store images.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Placement {
    /// zero-copy if the kernel is 6.8 or newer, otherwise copy
    #[default]
    Auto,
    /// The kernel copies the images into the initramfs
    Copy,
    /// The images stay where the boot loader put them, if it loads zero-copy.cpio, too; needs Linux 6.8 or newer
    ZeroCopy,
}

impl Placement {
    /// Whether the images can stay where the boot loader puts them, with a kernel of this release.
    ///
    /// # Errors
    ///
    /// [`ZeroCopy`](Self::ZeroCopy) with a kernel that is too old.
    pub fn is_zero_copy(self, release: &str) -> Result<bool> {
        let can = at_least(release, RETAINS);
        ensure!(
            self != Self::ZeroCopy || can != Some(false),
            "the kernel {release} does not keep the ramdisk in memory; this needs Linux {}.{} or newer: build with \
             --image-placement copy, or with a newer kernel",
            RETAINS.0,
            RETAINS.1
        );
        Ok(match self {
            Self::Auto => can == Some(true),
            Self::Copy => false,
            Self::ZeroCopy => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Placement;

    #[test]
    fn placements_by_kernel() {
        for (placement, release, expected) in [
            (Placement::Auto, "6.1.0", Some(false)),
            (Placement::Auto, "6.12.95", Some(true)),
            (Placement::Auto, "unknown", Some(false)),
            (Placement::Copy, "7.3", Some(false)),
            (Placement::ZeroCopy, "6.8", Some(true)),
            (Placement::ZeroCopy, "unknown", Some(true)),
            (Placement::ZeroCopy, "6.7.12", None),
        ] {
            assert_eq!(placement.is_zero_copy(release).ok(), expected, "{placement:?} {release}");
        }
    }
}
