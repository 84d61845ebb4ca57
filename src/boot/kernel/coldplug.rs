//! Drivers for the devices that are there: what udev does with `modalias` when it starts, for the modules of the ramdisk.

use crate::boot::kernel::modules::Loader;
use anyhow::Result;
use std::fs;
use std::path::Path;

/// Loads the drivers that the ramdisk has for the machine's devices. A driver of a bus brings devices that were not there
/// before; this ends when no device asks for another module.
///
/// # Errors
///
/// None: without one of its devices, a machine may well do its work.
pub fn run(modules: &mut Loader<'_>) -> Result<()> {
    if !modules.has_aliases() {
        return Ok(());
    }
    loop {
        let before = modules.count();
        let mut aliases = Vec::new();
        find(Path::new("/sys/devices"), &mut aliases);
        // sysfs has no order of its own, and a boot that repeats can be looked into.
        aliases.sort();
        aliases.dedup();
        for alias in aliases {
            modules.load(&alias);
        }
        if modules.count() == before {
            return Ok(());
        }
    }
}

/// Collects what is in all files `modalias` below a directory. Symlinks lead to other devices and in circles. A directory that
/// cannot be read is one of a device that has just gone.
fn find(directory: &Path, aliases: &mut Vec<String>) {
    if let Ok(alias) = fs::read_to_string(directory.join("modalias")) {
        aliases.push(alias.trim_end().to_owned());
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&entry.path(), aliases);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_device_is_found() {
        let sys = tempfile::tempdir().unwrap();
        for (device, alias) in
            [("pci0/0", "pci:x\n"), ("pci0/0/virtio0", "virtio:y\n"), ("pci0/1", "pci:x\n"), ("x", "\n")]
        {
            fs::create_dir_all(sys.path().join(device)).unwrap();
            fs::write(sys.path().join(device).join("modalias"), alias).unwrap();
        }
        symlink("..", sys.path().join("pci0/subsystem")).unwrap();
        let mut aliases = Vec::new();
        find(sys.path(), &mut aliases);
        aliases.sort();
        assert_eq!(aliases, ["", "pci:x", "pci:x", "virtio:y"]);
    }
}
