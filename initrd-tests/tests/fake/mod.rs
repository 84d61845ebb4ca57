//! A system for the builder, made in no time.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A system that is only what the builder looks at, and its way into the store.
pub struct Fake {
    directory: TempDir,
}

impl Fake {
    /// What every build takes.
    pub fn new() -> Self {
        let fake = Self { directory: tempfile::tempdir().unwrap() };
        fake.file("init", "#!/bin/sh\n");
        fake.file("bzImage", "no real kernel");
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

    /// Where something of it lies before it is in the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of it.
    pub fn file(&self, name: &str, contents: &str) -> &Self {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), contents).unwrap();
        self
    }

    /// The system as a valid store path.
    pub fn in_store(&self) -> PathBuf {
        let output = Command::new("nix-store").arg("--add").arg(self.directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    }
}
