//! Kernel parameters: those of firn, with their help, and those that firn puts on a command line.

/// In every generated command line. The initramfs is a ramfs then and may fill all of the memory; the default is a tmpfs of half of
/// the memory that is free beside the ramdisk.
pub const RAMFS: &str = "rootfstype=ramfs";

/// In the command lines of retained images: the kernel keeps the ramdisk in memory after the boot, as
/// [`INITRD`](super::place::INITRD).
pub const RETAIN: &str = "retain_initrd";

/// The start of the names of firn's own parameters.
pub const PREFIX: &str = "firn.";

/// firn's own parameters, each with its values and its effect, as the README has them.
pub const PARAMETERS: &[(&str, &str)] = &[
    (
        "firn.store",
        "another path of the store image in the ramdisk, or several with commas between, the lowest layer first",
    ),
    (
        "firn.modules",
        "modules of the ramdisk to load, too: names or aliases with commas between; several such words add up",
    ),
    (
        "firn.modules.skip",
        "modules not to load; `module_blacklist=`, `modprobe.blacklist=` and `rd.driver.blacklist=` say the same",
    ),
    ("firn.root.size", "how much of the memory the root may take: `80%`, `4g`; half of it by default"),
    ("firn.root.inodes", "how many files and directories the root may have; `0` is no limit"),
    ("firn.rw-store.size", "the same for what is written to the store"),
    ("firn.rw-store.inodes", "the same for what is written to the store"),
    (
        "firn.register",
        "`prebuilt` (the default): register the store by the database in the ramdisk, or as `load` if it has none; `load`: by the \
         system's Nix; go on if either fails; `required`: as `prebuilt`, or the boot fails; `none`: do not",
    ),
    ("firn.etc", "whether an `/etc` that is an overlay can be written to: `mutable` (the default) or `immutable`"),
    ("firn.verify", "`size` (the default): the store image has to be whole; `full`: and its SHA-256 that of the plan"),
    (
        "firn.hostid",
        "eight hexadecimal digits that become `/etc/hostid` before modules are loaded: NixOS' `networking.hostId`",
    ),
    (
        "firn.on_failure",
        "what to do when the boot fails: `menu`, or after some seconds `reboot,30`, `poweroff,30`, `panic,30`",
    ),
    ("firn.log", "what stage 1 writes to the kernel log: `off`, `error`, `warn`, `info` (the default) or `debug`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_every_parameter() {
        let readme = include_str!("../../README.md");
        for (name, text) in PARAMETERS {
            assert!(readme.contains(&format!("| `{name}=` | {text} |")), "{name}");
        }
    }
}
