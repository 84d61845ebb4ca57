//! Drivers for the devices of the machine: loads modules of the ramdisk by `modalias`, as udev does when it starts.

use crate::boot::kernel::modules::Loader;
use anyhow::Result;
use std::fs;
use std::path::Path;

/// Loads the drivers that the ramdisk has for the devices of the machine. A driver of a bus brings new devices, so this repeats until it
/// loads no more modules.
///
/// # Errors
///
/// None: a driver that fails is a warning in the log.
pub fn run(modules: &mut Loader<'_>) -> Result<()> {
    if !modules.has_aliases() {
        return Ok(());
    }
    loop {
        let before = modules.count();
        let mut aliases = Vec::new();
        find(Path::new("/sys/devices"), &mut aliases);
        // sysfs has no fixed order. Every boot has to load modules in the same order.
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

/// Collects the contents of all files `modalias` below a directory. It does not follow symlinks: they lead to other devices and form
/// loops. A directory that cannot be read belongs to a device that has just disappeared.
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
