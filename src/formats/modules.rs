//! Kernel modules, their names and dependencies, from the files that depmod writes into `/lib/modules/<release>`.
//!
//! The builder resolves the modules that every boot loads. Stage 1 resolves those that a device, a parameter or a ramdisk without
//! a plan asks for.

pub use crate::formats::module_alias::fits;

use std::collections::{HashMap, HashSet};
use std::iter;

/// The file with facts about built-in modules, their aliases among them ([`crate::formats::module_alias::is_built_in`]). It comes from the
/// kernel's build.
pub const MODINFO: &str = "modules.builtin.modinfo";

/// The texts of depmod's files. The text of a missing file is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// `modules.dep`: `file: needed needed…` on each line (`man 5 modules.dep`).
    pub dep: String,
    /// `modules.builtin`: a file on each line, for each module in the kernel itself.
    pub builtin: String,
    /// `modules.alias`: `alias pattern name` on each line.
    pub alias: String,
    /// `modules.softdep`: `softdep name pre: name… post: name…` on each line (`man 5 modprobe.d`). All lines about a module count.
    /// modprobe uses only the first one, and later the kernel asks it for the other modules. Stage 1 has no modprobe.
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

/// A module file's path without `.ko` and the suffix of its compression (`kmod_exts` of kmod's `shared/util.c`).
#[must_use]
pub fn without_suffix(file: &str) -> &str {
    let suffixes = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
    suffixes.iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file)
}

/// The path of a file of `modules.dep` in a directory of modules. A path can be absolute, as for kmod.
#[must_use]
pub fn path(directory: &str, file: &str) -> String {
    if file.starts_with('/') { file.to_owned() } else { format!("{directory}/{file}") }
}

/// The path of a module file in firn's ramdisks, which have decompressed files, relative to `/lib/modules/<release>`. An absolute path of
/// `modules.dep` (a directory outside of it that depmod was told to search) comes below it.
#[must_use]
pub fn packed(file: &str) -> String {
    without_suffix(file.trim_start_matches('/')).to_owned() + ".ko"
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

    /// The texts about some of the files, under their names in a ramdisk ([`packed`]); and about all built-in modules.
    #[must_use]
    pub fn only(&self, files: &[&str]) -> Self {
        let names: HashSet<_> = files.iter().map(|file| module_name(file)).collect();
        let dep = dep_lines(&self.dep).filter(|line| files.contains(&line.file)).map(|line| {
            let words: Vec<_> = iter::once(packed(line.file) + ":").chain(line.needs.into_iter().map(packed)).collect();
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

    /// The aliases of the modules of file systems: what the kernel asks for when it does not know the type of a mount
    /// (`MODULE_ALIAS_FS` of `include/linux/fs.h`).
    pub fn file_systems(&self) -> impl Iterator<Item = &'a str> {
        self.aliases.iter().map(|(pattern, _)| *pattern).filter(|pattern| fits("fs-*", pattern))
    }

    /// The files of the modules `names` (or aliases) and of the modules that they need; before and after each its soft dependencies,
    /// if there are modules for them. Built-in modules have no file.
    #[must_use]
    pub fn load_order<'n>(&self, names: &[&'n str]) -> LoadOrder<'n>
    where
        'a: 'n,
    {
        let (mut files, mut begun) = (Vec::new(), HashSet::new());
        let missing = names.iter().copied().filter(|name| !self.add(name, &mut files, &mut begun)).collect();
        LoadOrder { files, missing }
    }

    /// Adds the files of the modules with a name or an alias. False if there is no such module. `begun` are the names of the modules
    /// whose files are added or about to be.
    ///
    /// The order is kmod's (`kmod_module_new_from_lookup` of `libkmod-module.c`): names in `modules.dep`, aliases, built-in modules. A
    /// built-in module may have the name that is the alias of others: `crc32` is a part of Debian's 6.1, and the alias of `crc32_generic`.
    fn add(&self, name: &str, files: &mut Vec<&'a str>, begun: &mut HashSet<String>) -> bool {
        // A device's alias can end like a path.
        let module = if name.contains(':') { None } else { self.modules.get(&module_name(name)) };
        if let Some(Module { line: Some(line), .. }) = module {
            self.add_line(line, files, begun);
            return true;
        }
        let mut found = module.is_some_and(|module| module.builtin);
        // All of them: several modules may have one alias.
        for (_, other) in self.aliases.iter().filter(|(pattern, _)| fits(pattern, name)) {
            let module = self.modules.get(&module_name(other));
            found |= module.is_some_and(|module| module.builtin || module.line.is_some());
            if let Some(line) = module.and_then(|module| module.line.as_ref()) {
                self.add_line(line, files, begun);
            }
        }
        found
    }

    /// Adds the file of a module after those that it needs, each between its soft dependencies (`__kmod_module_get_probe_list` of
    /// `libkmod-module.c`). depmod lists all files that a module needs; from right to left they are in load order. Soft dependencies may
    /// lead in a circle.
    fn add_line(&self, line: &DepLine<'a>, files: &mut Vec<&'a str>, begun: &mut HashSet<String>) {
        if !begun.insert(module_name(line.file)) {
            return;
        }
        for file in line.needs.iter().rev().chain([&line.file]).copied() {
            if files.contains(&file) {
                continue;
            }
            let soft = self.modules.get(&module_name(file)).map(|module| &module.soft);
            for name in soft.iter().flat_map(|soft| &soft.before) {
                self.add(name, files, begun);
            }
            // A soft dependency that needs this module has added it.
            if !files.contains(&file) {
                files.push(file);
            }
            for name in soft.iter().flat_map(|soft| &soft.after) {
                self.add(name, files, begun);
            }
        }
    }
}

#[cfg(test)]
mod tests;
