//! Kernel parameters: firn's own, with their help texts, and the kernel's own that firn adds to a command line.

/// Part of every generated command line. It makes the initramfs a ramfs, which may fill all of the memory. The default is a tmpfs,
/// which may fill half of the memory that the ramdisk leaves free.
pub const RAMFS: &str = "rootfstype=ramfs";

/// Part of the command line for retained images. It makes the kernel keep the ramdisk in memory after the boot and show it as the
/// file [`INITRD`](super::place::INITRD).
pub const RETAIN: &str = "retain_initrd";

/// The maximum length of the command line, bytes: `COMMAND_LINE_SIZE` without the final NUL, of x86 and arm64 (asm/setup.h). The kernel
/// cuts off the rest without a message.
pub const LONGEST_LINE: usize = 2047;

/// The prefix of the names of firn's own parameters.
pub const PREFIX: &str = "firn.";

/// firn's own parameters, each with a help text on its values and its effect. README.md shows the same texts.
pub const PARAMETERS: &[(&str, &str)] = &[
    (
        "firn.store",
        "path of the store image: a file of the ramdisk, or a block device; several paths are separated by commas, the lowest layer first",
    ),
    (
        "firn.store.sha256",
        "the SHA-256 of each store image of `firn.store=`, in the same order, separated by commas; the boot fails if an image has another one",
    ),
    (
        "firn.modules",
        "additional modules of the ramdisk to load: names or aliases, separated by commas; can be given several times",
    ),
    (
        "firn.modules.skip",
        "modules not to load; `module_blacklist=`, `modprobe.blacklist=` and `rd.driver.blacklist=` have the same effect",
    ),
    (
        "firn.persistence",
        "`own` (the default): the disk of `boot.persistence=` must not have another system; `any`: it may have one, whose \
         store is hidden; its Nix database and profiles stay as they are",
    ),
    (
        "firn.root.size",
        "size limit of the root in memory: `4g`, or a part of the memory such as `80%`; the default follows from the memory that is left",
    ),
    (
        "firn.root.inodes",
        "limit for the number of files and directories in the root; `0` means no limit; the default is one for each 2 KiB of its size",
    ),
    (
        "firn.rw-store.size",
        "size limit of the writable store layer: `4g`, or a part of the memory such as `80%`; the default follows from the memory that is left",
    ),
    (
        "firn.rw-store.inodes",
        "limit for the number of files and directories in the writable store layer; `0` means no limit; the default is one for each 2 KiB of its size",
    ),
    (
        "firn.register",
        "`prebuilt` (the default): copy the Nix database from the ramdisk; `load`: the system's own Nix makes it; `required`: as \
         `prebuilt`, and the boot fails without it; `none`: make no Nix database; Nix collects no garbage then. With `prebuilt` and `required`, Nix makes the \
         database if the ramdisk has none. With `prebuilt` and `load`, the boot goes on after an error",
    ),
    (
        "firn.etc",
        "for systems with an overlay for `/etc`: `mutable` (the default) makes `/etc` writable, `immutable` makes it read-only",
    ),
    ("firn.verify", "`size` (the default): check that the store image is complete; `full`: also check its SHA-256"),
    (
        "firn.hostid",
        "the host id, eight hexadecimal digits (NixOS' `networking.hostId`); stage 1 writes it to `/etc/hostid` before it loads modules",
    ),
    (
        "firn.on_failure",
        "action after a failed boot: `menu`, `reboot`, `poweroff` or `panic`; the last three can wait some seconds: `reboot,30`",
    ),
    (
        "firn.log",
        "level of the messages that stage 1 writes to the kernel log: `off`, `error`, `warn`, `info` (the default) or `debug`",
    ),
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
