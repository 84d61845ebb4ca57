//! Drivers for the devices of the machine: loads modules of the ramdisk by `modalias`, as udev does when it starts.

use crate::boot::kernel::modules::Loader;
use anyhow::Result;
use std::fs;
use std::path::Path;

/// The directories of sysfs with a link to each device that may have a `modalias`; `*` is any name. Of classes, only these two have
/// one, and of `system` the processors do (Documentation/ABI/testing/sysfs-bus-* and drivers/base/cpu.c of Linux 6.12).
const PLACES: [&str; 4] = ["/sys/bus/*/devices/*", "/sys/class/dmi/*", "/sys/class/input/*", "/sys/devices/system/*"];

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
        for place in PLACES {
            find(Path::new("/"), place, &mut aliases);
        }
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

/// The number of the last event of a device (`/sys/kernel/uevent_seqnum`): while it is the same, there are no new devices. A kernel
/// without it has an empty text.
pub fn last_event() -> String {
    fs::read_to_string("/sys/kernel/uevent_seqnum").unwrap_or_default()
}

/// Collects the contents of all files `modalias` in the directories of a pattern. A directory that cannot be read belongs to a device
/// that has just disappeared.
fn find(directory: &Path, pattern: &str, aliases: &mut Vec<String>) {
    let Some((before, after)) = pattern.split_once('*') else {
        let file = directory.join(pattern.trim_start_matches('/')).join("modalias");
        aliases.extend(fs::read_to_string(file).map(|alias| alias.trim_end().to_owned()));
        return;
    };
    for entry in fs::read_dir(directory.join(before.trim_start_matches('/'))).into_iter().flatten().flatten() {
        find(&entry.path(), after, aliases);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_device_is_found() {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path().join("sys");
        for (device, alias) in [
            ("devices/pci0/0", "pci:x\n"),
            ("devices/pci0/0/virtio0", "virtio:y\n"),
            ("devices/pci0/1", "pci:x\n"),
            ("devices/x", "\n"),
            ("devices/system/cpu", "cpu:z\n"),
            ("devices/id", "dmi:bios\n"),
        ] {
            fs::create_dir_all(sys.join(device)).unwrap();
            fs::write(sys.join(device).join("modalias"), alias).unwrap();
        }
        for (link, device) in [
            ("bus/pci/devices/0", "pci0/0"),
            ("bus/pci/devices/1", "pci0/1"),
            ("bus/pci/devices/gone", "pci0/2"),
            ("bus/virtio/devices/virtio0", "pci0/0/virtio0"),
            ("bus/x/devices/x", "x"),
            ("class/dmi/id", "id"),
        ] {
            let link = sys.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(sys.join("devices").join(device), link).unwrap();
        }
        let mut aliases = Vec::new();
        for place in PLACES {
            find(root.path(), place, &mut aliases);
        }
        aliases.sort();
        assert_eq!(aliases, ["", "cpu:z", "dmi:bios", "pci:x", "pci:x", "virtio:y"]);
    }

    /// On the machine of the test: a whole walk finds no alias that the places lack.
    #[test]
    fn a_6_the_places_have_the_aliases_of_all_devices() {
        fn walk(directory: &Path, aliases: &mut Vec<String>) {
            aliases.extend(fs::read_to_string(directory.join("modalias")).map(|alias| alias.trim_end().to_owned()));
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    walk(&entry.path(), aliases);
                }
            }
        }
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        walk(Path::new("/sys/devices"), &mut expected);
        for place in PLACES {
            find(Path::new("/"), place, &mut found);
        }
        for aliases in [&mut expected, &mut found] {
            aliases.sort();
            aliases.dedup();
        }
        assert_eq!(found, expected);
    }
}
