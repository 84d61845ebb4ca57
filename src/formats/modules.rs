//! Kernel modules, their names and dependencies, from the files that depmod writes into `/lib/modules/<release>`.
//!
//! The builder resolves the modules that every boot loads. Stage 1 resolves those that a device, a parameter or a ramdisk without
//! a plan asks for.

pub use crate::formats::module_alias::fits;

use std::collections::{HashMap, HashSet};
use std::iter;

/// The texts of depmod's files. The text of a missing file is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// `modules.dep`: `file: needed needed…` on each line (`man 5 modules.dep`).
    pub dep: String,
    /// `modules.builtin`: a file on each line, for each module in the kernel itself.
    pub builtin: String,
    /// `modules.alias`: `alias pattern name` on each line.
    pub alias: String,
    /// `modules.softdep`: `softdep name pre: name… post: name…` on each line (`man 5 modprobe.d`).
    pub softdep: String,
}

/// The same, parsed. Lines of another form are skipped.
#[derive(Debug, Default)]
pub struct Index<'a> {
    /// By the name under which the kernel knows a module.
    modules: HashMap<String, Module<'a>>,
    /// Patterns and the names of modules.
    aliases: Vec<(&'a str, &'a str)>,
}

/// A module, as far as the texts name it.
#[derive(Debug, Default)]
struct Module<'a> {
    line: Option<DepLine<'a>>,
    builtin: bool,
    soft: SoftDependencies<'a>,
}

/// A line of `modules.dep`: a module's file and the files that it needs.
#[derive(Debug)]
struct DepLine<'a> {
    file: &'a str,
    needs: Vec<&'a str>,
}

/// The modules that one works better with, by name or alias.
#[derive(Debug, Default)]
struct SoftDependencies<'a> {
    before: Vec<&'a str>,
    after: Vec<&'a str>,
}

/// The files to load for some modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LoadOrder<'a> {
    /// Files relative to `/lib/modules/<release>`, each once, each after the files that it needs.
    pub files: Vec<&'a str>,
    /// The names that belong to no file and no built-in module.
    pub missing: Vec<&'a str>,
}

/// The name under which the kernel knows a module file: no directory, no `.ko*`, `_` for `-`.
#[must_use]
pub fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    without_suffix(base).replace('-', "_")
}

/// A module file's path without `.ko` and the suffix of its compression.
#[must_use]
pub fn without_suffix(file: &str) -> &str {
    let suffixes = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
    suffixes.iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file)
}

impl Texts {
    /// Gets each text by the name of its file.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn read<E>(mut read: impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        Ok(Self {
            dep: read("modules.dep")?,
            builtin: read("modules.builtin")?,
            alias: read("modules.alias")?,
            softdep: read("modules.softdep")?,
        })
    }

    /// Each text with the name of its file.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &str); 4] {
        [
            ("modules.dep", &self.dep),
            ("modules.builtin", &self.builtin),
            ("modules.alias", &self.alias),
            ("modules.softdep", &self.softdep),
        ]
    }

    /// The texts about some of the files, under their names after decompression; and about all built-in modules.
    #[must_use]
    pub fn only(&self, files: &[&str]) -> Self {
        let names: HashSet<_> = files.iter().map(|file| module_name(file)).collect();
        let raw = |file: &str| without_suffix(file).to_owned() + ".ko";
        let dep = dep_lines(&self.dep).filter(|line| files.contains(&line.file)).map(|line| {
            let words: Vec<_> = iter::once(raw(line.file) + ":").chain(line.needs.into_iter().map(raw)).collect();
            words.join(" ") + "\n"
        });
        // The module's name is the last word of an alias, and the first of soft dependencies.
        let about = |text: &str, name: fn(&str) -> Option<&str>| {
            let kept = |line: &&str| name(line.trim_end()).is_some_and(|name| names.contains(&module_name(name)));
            text.split_inclusive('\n').filter(kept).collect()
        };
        Self {
            dep: dep.collect(),
            builtin: self.builtin.clone(),
            alias: about(&self.alias, |line| alias_line(line).map(|(_, name)| name)),
            softdep: about(&self.softdep, |line| softdep_line(line).map(|(name, _)| name)),
        }
    }
}

fn dep_lines(text: &str) -> impl Iterator<Item = DepLine<'_>> {
    text.lines().filter_map(|line| {
        let (file, needs) = line.split_once(':')?;
        Some(DepLine { file, needs: needs.split_whitespace().collect() })
    })
}

/// The pattern and the name of a module.
fn alias_line(line: &str) -> Option<(&str, &str)> {
    let (pattern, name) = line.strip_prefix("alias ")?.rsplit_once(char::is_whitespace)?;
    Some((pattern.trim(), name))
}

/// The name of a module and what follows.
fn softdep_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("softdep ")?.split_once(char::is_whitespace)
}

impl<'a> SoftDependencies<'a> {
    fn add(&mut self, words: &'a str) {
        let mut list = None;
        for word in words.split_whitespace() {
            match (word, &mut list) {
                ("pre:", _) => list = Some(&mut self.before),
                ("post:", _) => list = Some(&mut self.after),
                (name, Some(list)) => list.push(name),
                (_, None) => {}
            }
        }
    }
}

impl<'a> Index<'a> {
    /// Parses the texts.
    #[must_use]
    pub fn parse(texts: &'a Texts) -> Self {
        let mut index = Self { aliases: texts.alias.lines().filter_map(alias_line).collect(), ..Self::default() };
        for line in dep_lines(&texts.dep) {
            let file = line.file;
            index.module(file).line = Some(line);
        }
        for file in texts.builtin.lines() {
            index.module(file).builtin = true;
        }
        for (name, words) in texts.softdep.lines().filter_map(softdep_line) {
            index.module(name).soft.add(words);
        }
        index
    }

    fn module(&mut self, file: &str) -> &mut Module<'a> {
        self.modules.entry(module_name(file)).or_default()
    }

    /// Whether a device can ask for a module.
    #[must_use]
    pub fn has_aliases(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// The names of all modules, built-in ones, too.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let there = self.modules.iter().filter(|(_, module)| module.line.is_some() || module.builtin);
        there.map(|(name, _)| name.as_str())
    }

    /// The files of the modules `names` (or aliases) and of the modules that they need; before and after each its soft dependencies,
    /// if there are such modules. Built-in modules have no file.
    #[must_use]
    pub fn load_order<'n>(&self, names: &[&'n str]) -> LoadOrder<'n>
    where
        'a: 'n,
    {
        let (mut files, mut begun) = (Vec::new(), HashSet::new());
        let missing = names.iter().copied().filter(|name| !self.add(name, &mut files, &mut begun)).collect();
        LoadOrder { files, missing }
    }

    /// Adds the files of a module by its name or alias. False if there is no such module. `begun` are the names of the modules whose
    /// files are added or about to be.
    fn add(&self, name: &str, files: &mut Vec<&'a str>, begun: &mut HashSet<String>) -> bool {
        let mut add = |name: &str| {
            let name = module_name(name);
            match self.modules.get(&name) {
                Some(Module { line: Some(line), .. }) => {
                    if begun.insert(name) {
                        self.add_line(line, files, begun);
                    }
                    true
                }
                other => other.is_some_and(|module| module.builtin),
            }
        };
        // Not `any`: several modules may have one alias.
        add(name) || self.aliases.iter().filter(|(pattern, module)| fits(pattern, name) && add(module)).count() > 0
    }

    /// depmod lists all files that a module needs; from right to left they are in load order. These stay together: soft dependencies,
    /// which may lead in a circle, come before and after.
    fn add_line(&self, line: &DepLine<'a>, files: &mut Vec<&'a str>, begun: &mut HashSet<String>) {
        let needed = || line.needs.iter().rev().chain([&line.file]).copied();
        let soft: Vec<_> = needed().filter_map(|file| Some(&self.modules.get(&module_name(file))?.soft)).collect();
        for name in soft.iter().flat_map(|soft| &soft.before) {
            self.add(name, files, begun);
        }
        for file in needed() {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        for name in soft.iter().flat_map(|soft| &soft.after) {
            self.add(name, files, begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    const DEP: &str = "kernel/fs/squashfs/squashfs.ko.xz:\n\
        kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko kernel/crypto/crc32c_generic.ko\n\
        kernel/lib/libcrc32c.ko: kernel/crypto/crc32c_generic.ko\n\
        kernel/crypto/crc32c_generic.ko:\n\
        kernel/arch/crc32c-intel.ko:\n\
        kernel/drivers/net/virtio-net.ko.zst: kernel/net/failover.ko\n\
        kernel/net/failover.ko:\n\
        a.ko:\nb.ko:\nc.ko: b.ko\n\
        a line without a colon\n";
    const BUILTIN: &str = "kernel/drivers/block/loop.ko\nkernel/fs/some-fs.ko\n";
    const ALIAS: &str = "# a comment\n\
        alias virtio:d00000001v* virtio_net\n\
        alias fs-some some_fs\n\
        alias crc32c crc32c_generic\n\
        alias crc32c crc32c_intel\n\
        alias gone no_such_module\n\
        alias nothing\n";
    const SOFTDEP: &str = "# a comment\n\
        softdep squashfs pre: a no-such-module loop\n\
        softdep squashfs post: virtio:d00000001v00001AF4\n\
        softdep libcrc32c stray pre: crc32c\n\
        softdep b pre: c post: a\n\
        softdep\n";

    fn texts() -> Texts {
        Texts { dep: DEP.into(), builtin: BUILTIN.into(), alias: ALIAS.into(), softdep: SOFTDEP.into() }
    }

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
        let erofs = [
            "kernel/crypto/crc32c_generic.ko",
            "kernel/arch/crc32c-intel.ko",
            "kernel/lib/libcrc32c.ko",
            "kernel/fs/erofs/erofs.ko",
        ];
        let virtio_net = ["kernel/net/failover.ko", "kernel/drivers/net/virtio-net.ko.zst"];
        let cases: &[(&[&str], &[&str], &[&str])] = &[
            (&["erofs"], &erofs, &[]),
            (&["libcrc32c", "erofs", "erofs"], &erofs, &[]),
            (&["virtio-net"], &virtio_net, &[]),
            (&["virtio_net"], &virtio_net, &[]),
            (&["virtio:d00000001v00001AF4"], &virtio_net, &[]),
            (&["crc32c"], &["kernel/crypto/crc32c_generic.ko", "kernel/arch/crc32c-intel.ko"], &[]),
            (&["loop", "some_fs", "fs-some"], &[], &[]),
            (&["squashfs"], &["a.ko", "kernel/fs/squashfs/squashfs.ko.xz", virtio_net[0], virtio_net[1]], &[]),
            // A module that is needed comes first, though it has a soft dependency on the other.
            (&["b"], &["b.ko", "c.ko", "a.ko"], &[]),
            (&["c"], &["b.ko", "c.ko", "a.ko"], &[]),
            (&["overlay", "a", "", "gone"], &["a.ko"], &["overlay", "", "gone"]),
        ];
        let texts = texts();
        let index = Index::parse(&texts);
        for (names, files, missing) in cases {
            let expected = LoadOrder { files: files.to_vec(), missing: missing.to_vec() };
            assert_eq!(index.load_order(names), expected, "{names:?}");
        }
    }

    #[test]
    fn a_part_says_the_same_of_what_it_has() {
        let part = texts().only(&["kernel/fs/squashfs/squashfs.ko.xz", "kernel/drivers/net/virtio-net.ko.zst"]);
        assert_eq!(
            part,
            Texts {
                dep: "kernel/fs/squashfs/squashfs.ko:\n\
                      kernel/drivers/net/virtio-net.ko: kernel/net/failover.ko\n"
                    .into(),
                builtin: BUILTIN.into(),
                alias: "alias virtio:d00000001v* virtio_net\n".into(),
                softdep: "softdep squashfs pre: a no-such-module loop\n\
                          softdep squashfs post: virtio:d00000001v00001AF4\n"
                    .into(),
            }
        );
    }

    #[test]
    fn every_text_has_its_file() {
        let texts = Texts::read(|name| Ok::<_, Infallible>(format!("the text of {name}"))).unwrap();
        for (name, text) in texts.named() {
            assert_eq!(text, format!("the text of {name}"));
        }
    }

    proptest! {
        /// Needs lead from each module to earlier ones, soft dependencies anywhere.
        #[test]
        fn whatever_the_soft_dependencies_each_file_comes_once_and_after_what_it_needs(
            needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12),
            soft in prop::collection::vec((0_usize..12, any::<bool>(), 0_usize..14), 0..20),
            asked in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
        ) {
            let mut closures: Vec<Vec<usize>> = Vec::new();
            for (module, needs) in needs.iter().enumerate() {
                let mut closure: Vec<_> = needs
                    .iter()
                    .filter(|_| module > 0)
                    .map(|need| need.index(module))
                    .flat_map(|need| closures[need].iter().copied().chain([need]))
                    .collect();
                closure.sort_unstable();
                closure.dedup();
                closures.push(closure);
            }
            let file = |module: usize| format!("m{module}.ko");
            let dep = closures.iter().enumerate().map(|(module, closure)| {
                let needs: Vec<_> = closure.iter().rev().map(|need| file(*need)).collect();
                format!("{}: {}", file(module), needs.join(" "))
            });
            let softdep = soft.iter().map(|(module, before, other)| {
                format!("softdep m{module} {}: m{other}", if *before { "pre" } else { "post" })
            });
            let join = |lines: Vec<_>| lines.join("\n");
            let texts = Texts { dep: join(dep.collect()), softdep: join(softdep.collect()), ..Texts::default() };
            let index = Index::parse(&texts);
            let names: Vec<_> = asked.iter().map(|asked| format!("m{}", asked.index(closures.len()))).collect();
            let order = index.load_order(&names.iter().map(String::as_str).collect::<Vec<_>>());

            assert_eq!(order.missing, [""; 0]);
            let place = |module: usize| order.files.iter().position(|other| **other == file(module));
            for name in &names {
                assert!(order.files.contains(&format!("{name}.ko").as_str()));
            }
            for (number, name) in order.files.iter().enumerate() {
                assert!(!order.files[..number].contains(name));
                let module: usize = module_name(name)[1..].parse().unwrap();
                for need in &closures[module] {
                    assert!(place(*need) < Some(number) && place(*need).is_some());
                }
            }
        }
    }
}
