//! A machine before its start, and the machine for a build.

use crate::loader::Loader;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The usual kernel parameters of a machine itself ([`Machine::own_parameters`]): of a parameter that comes twice the kernel
/// uses the last, so each of these can be overridden. The console is the first serial port. earlyprintk shows the start of the
/// kernel log in spite of `quiet` and `loglevel=`: without output the machine did not start. With `panic=-1` a panic reboots at
/// once, and with `-no-reboot` a reboot ends the machine, so that it need not wait for a time limit.
pub const OWN_PARAMETERS: &str = "earlyprintk=ttyS0 console=ttyS0 panic=-1";

/// The memory of a machine unless its ramdisk needs more, MiB.
const MEMORY_MIB: u32 = 1024;

/// A machine before its start.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The boot loader, which loads kernel, ramdisk and command line.
    pub loader: Loader,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The ramdisk.
    pub initrd: Option<PathBuf>,
    /// The images of the disks `vda`, `vdb`, …, for a guest with virtio drivers. One without permission to write is a read-only disk.
    pub disks: Vec<PathBuf>,
    /// Further arguments of QEMU, such as devices.
    pub arguments: Vec<String>,
    /// The kernel parameters of the machine itself, before those of [`Machine::cmdline`].
    pub own_parameters: &'static str,
    /// Kernel parameters.
    pub cmdline: String,
    /// The number of processors.
    pub processors: u32,
    /// Size of the memory, MiB.
    pub memory_mib: u32,
    /// [`Machine::run`] switches the machine off after this time.
    pub time_limit: Duration,
    /// Whether the guest's clock counts instructions, 1 ns each. Times in the guest are then the same at each run, however busy
    /// the host is. KVM is not used.
    pub counted: bool,
    /// Whether [`Machine::run`] shows the console on standard output.
    pub show: bool,
    /// Input for the console: when the console shows the first text, the second is typed; then the next pair.
    pub dialogue: Vec<(String, String)>,
}

impl Machine {
    /// A machine that boots this kernel without a ramdisk, with one processor, 1 GiB of memory and a time limit of five minutes.
    #[must_use]
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            loader: Loader::Qemu { firmware: None, network: false },
            kernel: kernel.into(),
            initrd: None,
            disks: Vec::new(),
            arguments: Vec::new(),
            own_parameters: OWN_PARAMETERS,
            cmdline: String::new(),
            processors: 1,
            memory_mib: MEMORY_MIB,
            time_limit: Duration::from_mins(5),
            counted: false,
            show: false,
            dialogue: Vec::new(),
        }
    }

    /// The machine for a directory made by `firn build`: kernel, ramdisk and command line of the build, and enough memory for the
    /// ramdisk, of which there are two copies while the kernel unpacks it. A larger [`Machine::memory_mib`] is no harm.
    ///
    /// # Errors
    ///
    /// A directory without a readable `manifest.json` or without a ramdisk, and a build for another platform than x86-64.
    pub fn of_build(directory: &Path) -> Result<Self> {
        /// The fields of the manifest that a machine needs. The bench's own directories have only a command line.
        #[derive(Deserialize)]
        struct Manifest {
            #[serde(default)]
            system: Option<String>,
            cmdline: String,
            /// The subcommand that made the directory from a build: its ramdisk may lack the store image.
            #[serde(default)]
            tree: String,
        }

        let path = directory.join("manifest.json");
        // Opening a pipe would wait for its other end.
        ensure!(!path.exists() || path.is_file(), "{} is no regular file; build the system again", path.display());
        let json = fs::read(&path)
            .with_context(|| format!("reading {}; give a directory made by `firn build`", path.display()))?;
        let manifest: Manifest = serde_json::from_slice(&json)
            .with_context(|| format!("{} is damaged or no manifest; build the system again", path.display()))?;
        ensure!(
            manifest.tree.is_empty(),
            "{} was made by `firn {}` from a build; give the directory of the build",
            directory.display(),
            manifest.tree
        );
        let system = manifest.system.as_deref().unwrap_or("x86_64-linux");
        ensure!(
            system == "x86_64-linux",
            "{} is a build for {system}, and only builds for x86_64-linux can be booted here; start QEMU for that platform by hand",
            directory.display()
        );
        let initrd = directory.join("initrd");
        let bytes = fs::metadata(&initrd).with_context(|| format!("reading the size of {}", initrd.display()))?.len();
        let needed = u32::try_from((bytes >> 20) * 2 + 512).unwrap_or(u32::MAX);
        Ok(Self {
            initrd: Some(initrd),
            cmdline: manifest.cmdline,
            memory_mib: MEMORY_MIB.max(needed),
            ..Self::new(directory.join("bzImage"))
        })
    }

    /// Adds kernel parameters, separated by spaces, at the end.
    pub fn append(&mut self, parameters: &str) {
        self.cmdline.push(' ');
        self.cmdline.push_str(parameters);
    }

    /// Types `keys` when the console shows `text`, after all earlier input.
    pub fn when(&mut self, text: &str, keys: &str) {
        self.dialogue.push((text.into(), keys.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_builds() {
        let directory = tempfile::tempdir().unwrap();
        let built = |json: &str| {
            fs::write(directory.path().join("manifest.json"), json).unwrap();
            Machine::of_build(directory.path())
        };
        let error = format!("{:#}", Machine::of_build(directory.path()).unwrap_err());
        assert!(error.contains("manifest.json; give a directory made by `firn build`: No such file"), "{error}");
        let error = built("{").unwrap_err().to_string();
        assert!(error.contains("is damaged or no manifest; build the system again"), "{error}");
        let error = built(r#"{"system": "aarch64-linux", "cmdline": ""}"#).unwrap_err().to_string();
        assert!(error.contains("is a build for aarch64-linux, and only builds for x86_64-linux"), "{error}");
        let error = built(r#"{"tree": "kexec", "cmdline": ""}"#).unwrap_err().to_string();
        assert!(error.ends_with("was made by `firn kexec` from a build; give the directory of the build"), "{error}");
        let ours = r#"{"firn": "1", "system": "x86_64-linux", "cmdline": "init=/nix/store/x/init"}"#;
        let error = built(ours).unwrap_err().to_string();
        assert!(error.contains("initrd"), "{error}");

        let initrd = fs::File::create(directory.path().join("initrd")).unwrap();
        let mut machine = built(ours).unwrap();
        machine.append("quiet");
        assert_eq!(machine.cmdline, "init=/nix/store/x/init quiet");
        assert_eq!(machine.initrd.as_deref(), Some(&*directory.path().join("initrd")));
        assert_eq!(machine.memory_mib, 1024);
        initrd.set_len(1 << 30).unwrap();
        assert_eq!(built(r#"{"cmdline": ""}"#).unwrap().memory_mib, 2560);
    }
}
