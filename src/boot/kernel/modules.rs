//! Loads kernel modules with `finit_module(2)`.

use crate::formats::cmdline::{self, CommandLine};
use crate::formats::modules::{Index, Texts, module_name};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::path::Path;

/// `MODULE_INIT_COMPRESSED_FILE` (Linux 5.17, include/uapi/linux/module.h): the kernel decompresses the file, if it is built with
/// `MODULE_DECOMPRESS`. Modules are decompressed in firn's own ramdisks, but not in the ramdisks of other tools.
const COMPRESSED_FILE: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// The kernel parameters that list modules not to load: firn's, the kernel's (it would refuse these modules, and the boot would fail),
/// kmod's and dracut's.
const SKIP_PARAMETERS: [&str; 4] =
    ["firn.modules.skip", "module_blacklist", "modprobe.blacklist", "rd.driver.blacklist"];

/// Loads modules of the ramdisk, each one once, with its parameters from the command line. Skips the modules that the command line
/// excludes.
pub struct Loader<'a> {
    cmdline: &'a CommandLine,
    /// The directory of the modules.
    directory: &'a str,
    index: Index<'a>,
    skipped: HashSet<String>,
    /// The names of the loaded modules, including those of earlier attempts of the boot.
    loaded: &'a mut HashSet<String>,
    /// The names of the modules that are loaded, skipped or refused. The next attempt tries refused modules again.
    tried: HashSet<String>,
    insert: Insert,
}

/// Loads a module file with its parameters into the kernel.
type Insert = Box<dyn FnMut(&str, &str) -> Result<()>>;

impl<'a> Loader<'a> {
    /// A loader for the modules in `directory`. `texts` are the files that depmod made for them. `loaded` holds the names of the modules
    /// that earlier attempts loaded.
    #[must_use]
    pub fn new(
        directory: &'a str,
        texts: &'a Texts,
        cmdline: &'a CommandLine,
        loaded: &'a mut HashSet<String>,
    ) -> Self {
        Self {
            cmdline,
            directory,
            index: Index::parse(texts),
            skipped: skipped(cmdline),
            tried: loaded.clone(),
            loaded,
            insert: Box::new(insert),
        }
    }

    /// Loads all modules that the ramdisk has for a name or an alias. Returns whether there are any, or the module is built into the
    /// kernel. A module that fails is a warning.
    pub fn load(&mut self, name: &str) -> bool {
        let order = self.index.load_order(&[name]);
        let files: Vec<_> = order.files.iter().map(|file| format!("{}/{file}", self.directory)).collect();
        let found = order.missing.is_empty() || self.tried.contains(&module_name(name));
        for file in files {
            if let Err(error) = self.load_file(&file) {
                log::warn!("{error:#}");
            }
        }
        found
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
        if self.skipped.contains(&name) {
            log::info!("Skipping {file}, because of the kernel command line");
            return Ok(());
        }
        let parameters = parameters(self.cmdline, &name);
        let mut load = |parameters: &str| {
            log::info!("Loading {}", [file, parameters].join(" ").trim_end());
            (self.insert)(file, parameters).with_context(|| format!("loading the kernel module {file}"))
        };
        match load(&parameters) {
            // The kernel refuses a module if the value of a parameter is invalid.
            Err(error) if !parameters.is_empty() => {
                log::warn!("{error:#}; trying again without {parameters}");
                load("")
            }
            result => result,
        }?;
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
fn insert(file: &str, parameters: &str) -> Result<()> {
    let compressed = Path::new(file).extension().is_some_and(|extension| extension != "ko");
    let flags = if compressed { COMPRESSED_FILE } else { ModuleInitFlags::empty() };
    let module = File::open(file).context("the ramdisk has no such file; build the ramdisk again")?;
    match finit_module(module, &CString::new(parameters)?, flags) {
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
            Errno::EOPNOTSUPP if compressed => "this kernel cannot decompress modules; build the ramdisk with firn",
            _ => "the kernel refuses it; the kernel log has the reason (dmesg)",
        }),
    }
}

/// The names of the modules that the command line excludes.
fn skipped(cmdline: &CommandLine) -> HashSet<String> {
    let lists = cmdline.iter().filter(|(key, _)| SKIP_PARAMETERS.contains(key)).filter_map(|(_, value)| value);
    lists.flat_map(|list| list.split(',')).filter(|name| !name.is_empty()).map(module_name).collect()
}

/// The parameters of a module, in the form of `finit_module(2)`: from the kernel parameters `name.parameter=value`, without the name.
/// For a module that is built in, the kernel reads them itself.
fn parameters(cmdline: &CommandLine, name: &str) -> String {
    let parameter = |(key, value)| {
        let (module, parameter): (&str, _) = str::split_once(key, '.')?;
        (module.replace('-', "_") == name).then(|| cmdline::parameter(parameter, value))
    };
    cmdline.iter().filter_map(parameter).collect::<Vec<_>>().join(" ")
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
            assert_eq!(parameters(&CommandLine::parse(line.as_bytes()), "loop"), expected, "{line}");
        }
        let cmdline = CommandLine::parse(b"virtio-blk.num-vqs=1 virtio_blk.x=2");
        assert_eq!(parameters(&cmdline, "virtio_blk"), "num-vqs=1 x=2");
    }

    /// A loader, and the list of its calls of the kernel. The kernel refuses the module `refused`.
    fn loader<'a>(
        texts: &'a Texts,
        cmdline: &'a CommandLine,
        loaded: &'a mut HashSet<String>,
        refused: &str,
    ) -> (Loader<'a>, Calls) {
        let calls = Calls::default();
        let (log, refused) = (calls.clone(), refused.to_owned());
        let mut made = Loader::new("/lib/modules/6.9", texts, cmdline, loaded);
        made.insert = Box::new(move |file, parameters| {
            log.borrow_mut().push(format!("{file} {parameters}").trim_end().to_owned());
            anyhow::ensure!(module_name(file) != refused, "Invalid argument");
            Ok(())
        });
        (made, calls)
    }

    type Calls = Rc<RefCell<Vec<String>>>;

    #[test]
    fn modules_get_their_parameters_and_come_once() {
        let texts = Texts { dep: "a.ko: b-c.ko\nb-c.ko:\nd.ko:\n".into(), ..Texts::default() };
        let cmdline = CommandLine::parse(b"b_c.x=1 a.y=\"2 3\" d.z=bad firn.modules.skip=e");
        let mut loaded = HashSet::new();
        let (mut first, calls) = loader(&texts, &cmdline, &mut loaded, "d");
        assert!(first.load("a") && first.load("a") && !first.load("none"));
        first.load_file("/x/e.ko").unwrap();
        assert!(
            format!("{:#}", first.load_file("/x/d.ko").unwrap_err()).starts_with("loading the kernel module /x/d.ko")
        );
        let lib = "/lib/modules/6.9";
        assert_eq!(
            *calls.borrow(),
            [&format!("{lib}/b-c.ko x=1"), &format!("{lib}/a.ko \"y=2 3\""), "/x/d.ko z=bad", "/x/d.ko"]
        );
        assert_eq!(first.count(), 4);

        // The next attempt of the boot loads only the module that failed.
        let (mut second, calls) = loader(&texts, &cmdline, &mut loaded, "");
        assert!(second.load("a"));
        second.load_file("/x/d.ko").unwrap();
        assert_eq!(*calls.borrow(), ["/x/d.ko z=bad"]);
    }

    #[test]
    fn all_lists_of_modules_to_skip_count() {
        let cmdline = CommandLine::parse(
            b"firn.modules.skip=a-b,,c module_blacklist=d modprobe.blacklist=e modprobe.blacklist=f,g \
              rd.driver.blacklist=h rd.driver.blacklist blacklist=i",
        );
        assert_eq!(skipped(&cmdline), ["a_b", "c", "d", "e", "f", "g", "h"].map(String::from).into());
    }
}
