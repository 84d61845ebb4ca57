//! `modules.dep`: which kernel module needs which, as depmod wrote it.
//!
//! The builder resolves the load order at build time; stage 1 does so itself only in a ramdisk without a plan.

use std::collections::{HashMap, HashSet};

/// A parsed `modules.dep` with its `modules.builtin`.
#[derive(Debug, Default)]
pub struct ModulesDep<'a> {
    /// Module name to its line: the file and what it needs.
    lines: HashMap<String, Line<'a>>,
    builtin: HashSet<String>,
}

#[derive(Debug)]
struct Line<'a> {
    file: &'a str,
    needs: Vec<&'a str>,
}

/// What loading some modules takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LoadOrder<'a> {
    /// Files relative to `/lib/modules/<release>`, each once, each after what it needs.
    pub files: Vec<&'a str>,
    /// What was asked for and the kernel has neither as a file nor built in.
    pub missing: Vec<&'a str>,
}

/// The name under which the kernel knows a module file: no directory, no `.ko*`, `_` for `-`.
#[must_use]
pub fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    without_suffix(base).replace('-', "_")
}

/// A module file's path without what tells that it is a module and how it is compressed.
#[must_use]
pub fn without_suffix(file: &str) -> &str {
    let suffixes = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
    suffixes.iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file)
}

impl<'a> ModulesDep<'a> {
    /// Parses the text of `modules.dep` (`file: needed needed…` on each line, `man 5 modules.dep`) and of
    /// `modules.builtin` (a file on each line). Lines without a colon are passed over.
    #[must_use]
    pub fn parse(dep: &'a str, builtin: &str) -> Self {
        let lines = dep.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            Some((module_name(file), Line { file, needs: needs.split_whitespace().collect() }))
        });
        Self { lines: lines.collect(), builtin: builtin.lines().map(module_name).collect() }
    }

    /// The files that the modules `names` need, and they themselves. Built-in modules need none. depmod lists a module's
    /// needs so that reading them from the right gives an order in which they can be loaded.
    #[must_use]
    pub fn load_order(&self, names: &[&'a str]) -> LoadOrder<'a> {
        let mut order = LoadOrder::default();
        let mut seen = HashSet::new();
        for &asked in names {
            let name = module_name(asked);
            match self.lines.get(&name) {
                Some(line) => {
                    let files = line.needs.iter().rev().chain([&line.file]).copied();
                    order.files.extend(files.filter(|file| seen.insert(*file)));
                }
                None if self.builtin.contains(&name) => {}
                None => order.missing.push(asked),
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/squashfs/squashfs.ko.xz:\n\
        kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko kernel/crypto/crc32c_generic.ko\n\
        kernel/lib/libcrc32c.ko: kernel/crypto/crc32c_generic.ko\n\
        kernel/drivers/net/virtio-net.ko.zst: kernel/net/failover.ko\n\
        a line without a colon\n";
    const BUILTIN: &str = "kernel/drivers/block/loop.ko\nkernel/fs/some-fs.ko\n";

    #[test]
    fn names() {
        for (file, name) in [
            ("kernel/fs/overlayfs/overlay.ko", "overlay"),
            ("virtio-net.ko.zst", "virtio_net"),
            ("x/snd-hda-intel.ko.xz", "snd_hda_intel"),
            ("loop", "loop"),
            ("a.kontor/loop.ko.gz", "loop"),
            ("", ""),
        ] {
            assert_eq!(module_name(file), name);
        }
    }

    #[test]
    fn load_orders() {
        let modules = ModulesDep::parse(DEP, BUILTIN);
        let cases: &[(&[&str], &[&str], &[&str])] = &[
            (&["squashfs"], &["kernel/fs/squashfs/squashfs.ko.xz"], &[]),
            (
                &["erofs"],
                &["kernel/crypto/crc32c_generic.ko", "kernel/lib/libcrc32c.ko", "kernel/fs/erofs/erofs.ko"],
                &[],
            ),
            (&["virtio-net"], &["kernel/net/failover.ko", "kernel/drivers/net/virtio-net.ko.zst"], &[]),
            (&["virtio_net"], &["kernel/net/failover.ko", "kernel/drivers/net/virtio-net.ko.zst"], &[]),
            (
                &["libcrc32c", "erofs", "erofs"],
                &["kernel/crypto/crc32c_generic.ko", "kernel/lib/libcrc32c.ko", "kernel/fs/erofs/erofs.ko"],
                &[],
            ),
            (&["loop", "some_fs"], &[], &[]),
            (&["overlay", "squashfs", ""], &["kernel/fs/squashfs/squashfs.ko.xz"], &["overlay", ""]),
        ];
        for (names, files, missing) in cases {
            let expected = LoadOrder { files: files.to_vec(), missing: missing.to_vec() };
            assert_eq!(modules.load_order(names), expected, "{names:?}");
        }
    }
}
