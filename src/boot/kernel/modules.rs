//! Loads kernel modules with `finit_module(2)`.

use crate::boot::kernel::{file, left_out};
use crate::formats::cmdline::{self, CommandLine};
use crate::formats::module_alias;
use crate::formats::modules::{Index, MODINFO, Texts, module_name, path};
use crate::formats::secrets;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::path::Path;

/// `MODULE_INIT_COMPRESSED_FILE` (Linux 5.17, include/uapi/linux/module.h): the kernel decompresses the file, if it is built with
/// `MODULE_DECOMPRESS`. Modules are decompressed in firn's own ramdisks, but not in the ramdisks of other tools.
const COMPRESSED_FILE: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Loads modules of the ramdisk, each one once, with its parameters from the system and from the command line. Skips the modules that the command line
/// excludes.
pub struct Loader<'a> {
    cmdline: &'a CommandLine,
    /// The parameters of modules from the plan.
    options: &'a [String],
    /// The directory of the modules.
    directory: &'a str,
    index: Index<'a>,
    /// The names of the loaded modules, including those of earlier attempts of the boot.
    loaded: &'a mut HashSet<String>,
    /// The names of the modules that are loaded, skipped or refused. The next attempt tries refused modules again.
    tried: HashSet<String>,
    insert: Insert,
}

/// Loads a module file with its parameters into the kernel.
type Insert = Box<dyn FnMut(&File, &CStr, ModuleInitFlags) -> nix::Result<()>>;

impl<'a> Loader<'a> {
    /// A loader for the modules in `directory`. `texts` are the files that depmod made for them, `options` the parameters of the plan. `loaded` holds the names of the modules
    /// that earlier attempts loaded.
    #[must_use]
    pub fn new(
        directory: &'a str,
        texts: &'a Texts,
        options: &'a [String],
        cmdline: &'a CommandLine,
        loaded: &'a mut HashSet<String>,
    ) -> Self {
        Self {
            cmdline,
            options,
            directory,
            index: Index::parse(texts),
            tried: loaded.clone(),
            loaded,
            insert: Box::new(|module, parameters, flags| finit_module(module, parameters, flags)),
        }
    }

    /// Loads all modules that the ramdisk has for a name or an alias. Returns whether there are any, or the module is built into the
    /// kernel. A module that fails is a warning.
    pub fn load(&mut self, name: &str) -> bool {
        let order = self.index.load_order(&[name]);
        let files: Vec<_> = order.files.iter().map(|file| path(self.directory, file)).collect();
        let found = order.missing.is_empty() || self.tried.contains(&module_name(name));
        for file in files {
            if let Err(error) = self.load_file(&file) {
                log::warn!("{error:#}");
            }
        }
        found
    }

    /// Loads all modules of file systems that the ramdisk has, with what they need.
    pub fn load_file_systems(&mut self) {
        let aliases: Vec<_> = self.index.file_systems().collect();
        for alias in aliases {
            self.load(alias);
        }
    }

    /// Whether a name is that of a built-in module with parameters, which sysfs has (`kernel/params.c`), or an alias of a built-in module,
    /// as far as the ramdisk has a `modules.builtin.modinfo`.
    #[must_use]
    pub fn is_built_in(&self, name: &str) -> bool {
        if Path::new(&path("/sys/module", &module_name(name))).exists() {
            return true;
        }
        let modinfo = fs::read(path(self.directory, MODINFO));
        modinfo.is_ok_and(|modinfo| module_alias::is_built_in(&modinfo, name))
    }

    /// Loads a module by its absolute path in the ramdisk.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or the kernel refuses the module.
    pub fn load_file(&mut self, file: &str) -> Result<()> {
        let name = module_name(file);
        if !self.tried.insert(name.clone()) {
            return Ok(());
        }
        if let Some(word) = left_out::by(self.cmdline, &name) {
            log::info!("Skipping {file}, because of {word} on the kernel command line");
            left_out::note(word);
            return Ok(());
        }
        let parameters = parameters(self.options, self.cmdline, &name);
        let all = parameters.join(" ");
        let mut load = |parameters: &str| {
            log::info!("Loading {}", [file, &without_secrets(parameters)].join(" ").trim_end());
            load_one(&mut self.insert, file, parameters)
        };
        if let Err(error) = load(&all) {
            // The kernel refuses a module if the value of a parameter is invalid, and names the parameter only in its log. Without this
            // parameter, it loads the module. The last attempt is without all parameters.
            let without = |bad: &&String| {
                let rest = parameters.iter().filter(|other| *other != *bad && **bad != all).cloned();
                !all.is_empty() && load(&rest.collect::<Vec<_>>().join(" ")).is_ok()
            };
            let Some(bad) = parameters.iter().chain([&all]).find(without) else {
                return Err(error.context(format!("loading the kernel module {file}{}", left_out::hint())));
            };
            log::warn!("loading the kernel module {file}: {error:#}; trying again without {}", shown(bad));
        }
        self.loaded.insert(name);
        Ok(())
    }

    /// The number of modules that are loaded, skipped or refused so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tried.len()
    }

    /// Whether the ramdisk has a `modules.alias`, so that devices can ask for modules.
    #[must_use]
    pub fn has_aliases(&self) -> bool {
        self.index.has_aliases()
    }
}

/// Loads a module. A module that is already loaded is no error, and neither is a driver that finds no device.
fn load_one(insert: &mut Insert, file: &str, parameters: &str) -> Result<()> {
    let compressed = Path::new(file).extension().is_some_and(|extension| extension != "ko");
    let flags = if compressed { COMPRESSED_FILE } else { ModuleInitFlags::empty() };
    let module = file::open(file).context("the ramdisk has no such file; build the ramdisk again")?;
    match insert(&module, &CString::new(parameters)?, flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        // One ramdisk serves many machines, and soft dependencies bring modules for features that only some processors have.
        Err(Errno::ENODEV) => {
            log::info!("This machine has no device or processor feature for {file}");
            Ok(())
        }
        Err(errno) => Err(errno).context(match errno {
            Errno::ENOEXEC => "the file is not a module for this kernel; build the ramdisk with its modules",
            Errno::EKEYREJECTED | Errno::EPERM => {
                "this kernel accepts only signed modules (Secure Boot, lockdown= or module.sig_enforce), and not this one; build \
                 the ramdisk with the modules that belong to the kernel, or lift the restriction"
            }
            Errno::ENOSPC if !parameters.is_empty() => {
                "the kernel refuses it: the value of a parameter is too long (the limit is 1,024 bytes or less)"
            }
            Errno::EOPNOTSUPP if compressed => "this kernel cannot decompress modules; build the ramdisk with firn",
            _ => "the kernel refuses it; the kernel log has the reason (dmesg)",
        }),
    }
}

/// The parameters of a module, in the form of `finit_module(2)`: those of the system, then the words `name.parameter=value` of the kernel
/// command line, without the name. The last value of a parameter counts. For a module that is built in, the kernel reads them itself.
fn parameters(options: &[String], cmdline: &CommandLine, name: &str) -> Vec<String> {
    let of_system = options.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(String::from);
    let mut parameters: Vec<_> = of_system.collect();
    for (key, value) in cmdline.iter() {
        if let Some((module, parameter)) = key.split_once('.')
            && module.replace('-', "_") == name
        {
            parameters.push(cmdline::parameter(parameter, value));
        }
    }
    parameters
}

/// Parameters for a message.
fn without_secrets(parameters: &str) -> String {
    secrets::hidden(&CommandLine::parse(parameters.as_bytes()))
}

/// A parameter for a message: a long one without its value.
fn shown(parameter: &str) -> String {
    let parameter = without_secrets(parameter);
    match parameter.trim_start_matches('"').split_once('=') {
        Some((name, value)) if value.len() > 100 => format!("{name}=, which has {} bytes", value.len()),
        _ => parameter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn parameters_of_a_module() {
        for (line, expected) in [
            ("quiet loop=1 loop.max_loop=8", "max_loop=8"),
            ("loop.a=1 loop.b loop.a=2", "a=1 b a=2"),
            (r#"loop.a="b c" "loop.d=e f" loop.g="""#, r#""a=b c" "d=e f" g="#),
            ("loop.a.b=c=d xloop.a=1 loopx.a=1", "a.b=c=d"),
        ] {
            let cmdline = CommandLine::parse(line.as_bytes());
            assert_eq!(parameters(&[], &cmdline, "loop").join(" "), expected, "{line}");
        }
        let cmdline = CommandLine::parse(b"virtio-blk.num-vqs=1 virtio_blk.x=2");
        assert_eq!(parameters(&[], &cmdline, "virtio_blk"), ["num-vqs=1", "x=2"]);
        // The last one counts for the kernel.
        let options = ["virtio y=1", "virtio_blk x=1", "virtio_blk \"name=a b\""].map(String::from);
        assert_eq!(parameters(&options, &cmdline, "virtio_blk"), ["x=1", "\"name=a b\"", "num-vqs=1", "x=2"]);
    }

    type Calls = Rc<RefCell<Vec<String>>>;

    /// A loader of modules in a directory, each with its name in its file, and its calls of the kernel: module, parameters, flags. The
    /// kernel has an error for a module with the name of one.
    fn loader<'a>(
        directory: &'a str,
        texts: &'a Texts,
        cmdline: &'a CommandLine,
        known: &'a mut HashSet<String>,
    ) -> (Loader<'a>, Calls) {
        let calls = Calls::default();
        let log = calls.clone();
        let mut made = Loader::new(directory, texts, &[], cmdline, known);
        made.insert = Box::new(move |module, parameters, flags| {
            let name = std::io::read_to_string(module).unwrap();
            let parameters = parameters.to_str().unwrap();
            log.borrow_mut().push(format!("{name} {parameters} {}", flags.bits()));
            match &*name {
                "EEXIST" => Err(Errno::EEXIST),
                "ENODEV" => Err(Errno::ENODEV),
                "picky" if !parameters.is_empty() => Err(Errno::EINVAL),
                _ if parameters.split_whitespace().any(|word| word.len() > 1026) => Err(Errno::ENOSPC),
                _ if parameters.contains("=bad") => Err(Errno::ERANGE),
                "EKEYREJECTED" => Err(Errno::EKEYREJECTED),
                _ => Ok(()),
            }
        });
        (made, calls)
    }

    #[test]
    fn the_kernel_gets_each_module_once_with_its_parameters() {
        let work = tempfile::tempdir().unwrap();
        let directory = work.path().to_str().unwrap();
        let path = |file: &str| format!("{directory}/{file}");
        for file in ["a.ko", "b-c.ko", "d.ko.xz", "EEXIST.ko", "ENODEV.ko", "EKEYREJECTED.ko", "picky.ko", "skipped.ko"]
        {
            std::fs::write(path(file), file.split('.').next().unwrap()).unwrap();
        }
        let texts = Texts { dep: "a.ko: b-c.ko\nb-c.ko:\nd.ko.xz:\n".into(), ..Texts::default() };
        let cmdline = CommandLine::parse(b"b_c.x=1 a.y=\"2 3\" picky.z=bad firn.modules.skip=skipped");
        let mut known = HashSet::new();
        let (mut first, calls) = loader(directory, &texts, &cmdline, &mut known);
        assert!(first.load("a") && first.load("a") && first.load("d") && !first.load("none"));
        for file in ["EEXIST.ko", "ENODEV.ko", "picky.ko", "skipped.ko"] {
            first.load_file(&path(file)).unwrap();
        }
        for (file, expected) in [("EKEYREJECTED.ko", "signed modules"), ("gone.ko", "no such file")] {
            let error = format!("{:#}", first.load_file(&path(file)).unwrap_err());
            let named = error.starts_with(&format!("loading the kernel module {}", path(file)));
            assert!(named && error.contains(expected), "{error}");
        }
        let compressed = format!("d  {}", COMPRESSED_FILE.bits());
        let expected = [
            "b-c x=1 0",
            "a \"y=2 3\" 0",
            &compressed,
            "EEXIST  0",
            "ENODEV  0",
            "picky z=bad 0",
            "picky  0",
            "EKEYREJECTED  0",
        ];
        assert_eq!(*calls.borrow(), expected);
        assert_eq!(first.count(), 9);

        // The next attempt of the boot loads only the modules that failed.
        let (mut second, calls) = loader(directory, &texts, &cmdline, &mut known);
        assert!(second.load("a"));
        second.load_file(&path("EKEYREJECTED.ko")).unwrap_err();
        assert_eq!(*calls.borrow(), ["EKEYREJECTED  0"]);
    }

    #[test]
    fn a_9_only_the_refused_parameter_is_left_out() {
        let work = tempfile::tempdir().unwrap();
        let directory = work.path().to_str().unwrap();
        for name in ["a", "b", "c", "d"] {
            std::fs::write(work.path().join(name).with_extension("ko"), name).unwrap();
        }
        let long = "x".repeat(1025);
        let line = format!("a.x=1 a.y=bad a.z=3 b.x=bad b.y=bad b.z=1 c.x={long} c.y=2 d.x=\"1 2\"");
        let (cmdline, texts, mut known) = (CommandLine::parse(line.as_bytes()), Texts::default(), HashSet::new());
        let (mut loader, calls) = loader(directory, &texts, &cmdline, &mut known);
        let mut last = |name: &str| {
            loader.load_file(&format!("{directory}/{name}.ko")).unwrap();
            calls.borrow().last().cloned().unwrap()
        };
        assert_eq!(["a", "b", "c", "d"].map(&mut last), ["a x=1 z=3 0", "b  0", "c y=2 0", "d \"x=1 2\" 0"]);

        assert_eq!(shown("y=bad"), "y=bad");
        assert_eq!(shown("key=hunter2"), "key=(hidden)");
        assert_eq!(shown(&format!("\"y=a {long}\"")), "y=, which has 1028 bytes");
        let file = work.path().join("c.ko");
        let error = load_one(&mut loader.insert, file.to_str().unwrap(), &format!("x={long}")).unwrap_err();
        assert!(error.to_string().contains("too long (the limit is 1,024 bytes or less)"), "{error}");
    }

    #[test]
    fn a_9_paths_compressions_aliases_and_file_systems_of_other_tools() {
        let (work, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directory = work.path().to_str().unwrap();
        std::fs::write(work.path().join("crc32_generic.ko.gz"), "crc32_generic").unwrap();
        std::fs::write(work.path().join("f2fs.ko"), "f2fs").unwrap();
        std::fs::write(work.path().join("virtio.ko"), "virtio").unwrap();
        std::fs::write(elsewhere.path().join("x.ko"), "x").unwrap();
        std::fs::write(work.path().join(MODINFO), b"ext4.alias=fs-ext4\0").unwrap();
        let texts = Texts {
            dep: format!("crc32_generic.ko.gz:\nf2fs.ko:\nvirtio.ko:\n{}/x.ko:\n", elsewhere.path().display()),
            builtin: "kernel/lib/crc32.ko\n".into(),
            alias: "alias crc32 crc32_generic\nalias fs-f2fs f2fs\nalias fs-x x\n".into(),
            softdep: "softdep f2fs pre: crc32\n".into(),
        };
        let (cmdline, mut known) = (CommandLine::parse(b""), HashSet::new());
        let (mut loader, calls) = loader(directory, &texts, &cmdline, &mut known);
        loader.load_file_systems();
        let compressed = format!("crc32_generic  {}", COMPRESSED_FILE.bits());
        assert_eq!(*calls.borrow(), [&compressed, "f2fs  0", "x  0"]);
        assert!(loader.load("crc32") && !loader.load("fs-ext4"));
        assert!(loader.is_built_in("fs-ext4") && !loader.is_built_in("fs-xfs"));
    }
}
