//! Where stage 1 has the store images: copied out of the ramdisk by the kernel, or where the boot loader put them.

use crate::contract::release::at_least;
use anyhow::{Result, ensure};
use clap::ValueEnum;

/// The first kernel that keeps the ramdisk for whoever wants to read it: 6.8 (`do_populate_rootfs`, init/initramfs.c).
const RETAINS: (u32, u32) = (6, 8);

/// Where stage 1 has the store images.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Placement {
    /// As they need less memory, if the kernel is 6.8 or newer; else a copy
    #[default]
    Auto,
    /// The kernel copies them into the initramfs
    Copy,
    /// They stay where the boot loader put them; takes Linux 6.8 or newer
    ZeroCopy,
}

impl Placement {
    /// Whether the images stay where the boot loader puts them, with a kernel of this release.
    ///
    /// # Errors
    ///
    /// A kernel that cannot, if it has to.
    pub fn retains(self, release: &str) -> Result<bool> {
        let can = at_least(release, RETAINS);
        ensure!(
            self != Self::ZeroCopy || can != Some(false),
            "the kernel {release} does not keep the ramdisk in memory, which takes Linux {}.{} or newer: build with \
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
    fn what_a_kernel_can() {
        for (placement, release, expected) in [
            (Placement::Auto, "6.1.0", Some(false)),
            (Placement::Auto, "6.12.95", Some(true)),
            (Placement::Auto, "unknown", Some(false)),
            (Placement::Copy, "7.3", Some(false)),
            (Placement::ZeroCopy, "6.8", Some(true)),
            (Placement::ZeroCopy, "unknown", Some(true)),
            (Placement::ZeroCopy, "6.7.12", None),
        ] {
            assert_eq!(placement.retains(release).ok(), expected, "{placement:?} {release}");
        }
    }
}
