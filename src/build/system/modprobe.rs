//! What a system says about its kernel modules: the files of its `/etc/modprobe.d` (`man 5 modprobe.d`), in which NixOS writes
//! `boot.blacklistedKernelModules` and `boot.extraModprobeConfig` (nixpkgs, `nixos/modules/system/boot/modprobe.nix`).

use crate::formats::cmdline::{self, CommandLine};
use crate::formats::modules::{Texts, module_name};
use crate::host::file;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The directory of the files, below the toplevel.
const DIRECTORY: &str = "etc/modprobe.d";

/// The commands of `install` lines that only keep a module from being loaded.
const NOTHING: [&str; 2] = ["true", "false"];

/// All files together. Modules have the names under which the kernel knows them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ModprobeConfig {
    /// The modules that nothing loads by their name or for a device, and the reason.
    left_out: BTreeMap<String, LeftOut>,
    /// The parameters of modules, as `finit_module(2)` takes them.
    options: BTreeMap<String, String>,
    /// Lines of `modules.alias`.
    aliases: String,
    /// Lines of `modules.softdep`.
    softdeps: String,
}

/// Why a module is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// `blacklist`, or an `install` line whose command does nothing.
    Wanted,
    /// An `install` line with this command, which would run instead of loading the module.
    Command(String),
}

/// Reads the files in the order of modprobe, which is that of their names.
///
/// # Errors
///
/// A directory or a file that cannot be read.
pub fn read(toplevel: &Path) -> Result<ModprobeConfig> {
    let directory = toplevel.join(DIRECTORY);
    let reading = || format!("reading {}; build the system again", directory.display());
    let mut files = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ModprobeConfig::default()),
        entries => {
            let paths =
                entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>());
            paths.with_context(reading)?
        }
    };
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    let mut config = ModprobeConfig::default();
    for path in files {
        let text = file::read(&path).with_context(|| format!("reading {}; build the system again", path.display()))?;
        config.add(&String::from_utf8_lossy(&text));
    }
    Ok(config)
}

impl ModprobeConfig {
    /// Adds the lines of a file. Lines of another form are skipped, as modprobe skips them.
    fn add(&mut self, text: &str) {
        // A line goes on after a backslash.
        for line in text.replace("\\\n", "").lines() {
            let Some((keyword, rest)) = line.trim().split_once([' ', '\t']) else { continue };
            let rest = rest.trim_start();
            let (name, value) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
            let (module, value) = (name.replace('-', "_"), value.trim_start());
            match (keyword, value) {
                ("blacklist", _) => {
                    self.left_out.entry(module).or_insert(LeftOut::Wanted);
                }
                (_, "") => {}
                ("install", command) => {
                    let program = command.split_whitespace().next().and_then(|program| program.rsplit('/').next());
                    let nothing = program.is_none_or(|program| NOTHING.contains(&program));
                    let reason = if nothing { LeftOut::Wanted } else { LeftOut::Command(command.into()) };
                    // The first line about a module counts.
                    self.left_out.entry(module).or_insert(reason);
                }
                ("options", words) => {
                    let all = self.options.entry(module).or_default();
                    *all = format!("{all} {words}").trim_start().into();
                }
                ("alias", module) => self.aliases.extend(["alias ", name, " ", module, "\n"]),
                ("softdep", modules) => self.softdeps.extend(["softdep ", name, " ", modules, "\n"]),
                _ => {}
            }
        }
    }

    /// Why a module is left out, if it is.
    #[must_use]
    pub fn left_out(&self, name: &str) -> Option<&LeftOut> {
        self.left_out.get(&module_name(name))
    }

    /// The parameters of those modules among `files` that have some, as in the plan.
    #[must_use]
    pub fn options_of(&self, files: &[&str]) -> Vec<String> {
        let mut options = Vec::new();
        for name in files.iter().map(|file| module_name(file)) {
            let words = CommandLine::parse(self.options.get(&name).map_or(b"", |words| words.as_bytes()));
            options.extend(words.iter().map(|(key, value)| format!("{name} {}", cmdline::parameter(key, value))));
        }
        options
    }

    /// Makes depmod's texts say the same, except for the modules in `required`: a module that is left out is found by no name and no
    /// alias. Other modules that need it still do.
    pub fn apply(&self, texts: &mut Texts, required: &[&str]) {
        let is_kept = |line: &&str| {
            let name = module_name(line.split(':').next().unwrap_or_default());
            !self.left_out.contains_key(&name) || required.iter().any(|required| module_name(required) == name)
        };
        texts.dep = texts.dep.split_inclusive('\n').filter(is_kept).collect();
        texts.alias.insert_str(0, &self.aliases);
        texts.softdep.insert_str(0, &self.softdeps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d_2_lines_of_modprobe_d() {
        let toplevel = tempfile::tempdir().unwrap();
        assert_eq!(read(toplevel.path()).unwrap(), ModprobeConfig::default());
        let directory = toplevel.path().join(DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("README"), "blacklist loop\n").unwrap();
        fs::write(directory.join("b.conf"), "options vfio-pci disable_vga=1\ninstall usb-storage /bin/false\n")
            .unwrap();
        let text = "# comment\n\nblacklist sd-mod\n  blacklist\thid-generic\noptions vfio_pci ids=10de:1c82,\\\n10de:0fb9\n\
                    options snd x=\"a b\"\nalias eth0 e1000\nsoftdep nvidia pre: vfio-pci\nblacklist\nremove x y\n\
                    install foo /sbin/modprobe -i foo && echo\ninstall bar\noptions bar\ninstall /bin/true";
        fs::write(directory.join("a.conf"), text).unwrap();
        let config = read(toplevel.path()).unwrap();
        for (name, expected) in [
            ("sd_mod", Some(LeftOut::Wanted)),
            ("hid-generic", Some(LeftOut::Wanted)),
            ("usb_storage", Some(LeftOut::Wanted)),
            ("bar", None),
            ("/bin/true", None),
            ("foo", Some(LeftOut::Command("/sbin/modprobe -i foo && echo".into()))),
            ("loop", None),
        ] {
            assert_eq!(config.left_out(name), expected.as_ref(), "{name}");
        }
        let options = config.options_of(&["kernel/drivers/vfio-pci.ko.xz", "loop.ko", "snd.ko"]);
        assert_eq!(options, ["vfio_pci ids=10de:1c82,10de:0fb9", "vfio_pci disable_vga=1", "snd \"x=a b\""]);

        let mut texts = Texts {
            dep: "a/sd_mod.ko.xz: a/b.ko\na/b.ko:\na/hid-generic.ko:\n".into(),
            alias: "alias x y\n".into(),
            softdep: "softdep x pre: y\n".into(),
            ..Texts::default()
        };
        config.apply(&mut texts, &["hid_generic"]);
        let expected = Texts {
            dep: "a/b.ko:\na/hid-generic.ko:\n".into(),
            alias: "alias eth0 e1000\nalias x y\n".into(),
            softdep: "softdep nvidia pre: vfio-pci\nsoftdep x pre: y\n".into(),
            ..Texts::default()
        };
        assert_eq!(texts, expected);
    }
}
