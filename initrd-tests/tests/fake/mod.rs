//! A minimal system for the builder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A program for UEFI in place of a kernel.
const KERNEL: &[u8] = include_bytes!("../../../fuzz/seeds/pe/kernel");

/// A system with only the files that the builder reads.
pub struct Fake {
    directory: TempDir,
}

impl Fake {
    /// A system with the files that every build needs.
    pub fn new() -> Self {
        let fake = Self { directory: tempfile::tempdir().unwrap() };
        fake.file("init", "#!/bin/sh\n");
        fs::write(fake.path("bzImage"), KERNEL).unwrap();
        fake.file("kernel-modules/lib/modules/6.9/modules.dep", "overlay.ko:\nsquashfs.ko:\n");
        fake.file("kernel-modules/lib/modules/6.9/modules.builtin", "kernel/drivers/block/loop.ko\n");
        fake.file("kernel-modules/lib/modules/6.9/overlay.ko", "overlay");
        fake.file("kernel-modules/lib/modules/6.9/squashfs.ko", "squashfs");
        fake.file("nixos-version", "1");
        fake.file("system", &format!("{}-linux", std::env::consts::ARCH));
        fake.file("kernel-params", "quiet");
        symlink("bzImage", fake.path("kernel")).unwrap();
        fake
    }

    /// The path of a file of the system before the system is in the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the system.
    pub fn file(&self, name: &str, contents: &str) -> &Self {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), contents).unwrap();
        self
    }

    /// Adds the system to the store and returns its store path.
    pub fn in_store(&self) -> PathBuf {
        let output = Command::new("nix-store").arg("--add").arg(self.directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    }
}
