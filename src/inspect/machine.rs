//! A build under QEMU, on this terminal: whether it boots, before it goes to a server.

use crate::host::interrupt;
use crate::inspect::manifest;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

const QEMU: &str = "qemu-system-x86_64";

/// The console is the serial port, from the kernel's first line on, and a panic ends the machine. Of a word that comes twice
/// the last one counts, so the system's own and those of `--append` win.
const OWN_WORDS: &str = "earlyprintk=ttyS0 console=ttyS0 panic=-1";

/// The CPU where there is no KVM: with RDRAND, for lack of which Nix waits for entropy; without CX16, with which Linux 6.12
/// died under QEMU 7.2; without what QEMU does not translate and warns of.
const TRANSLATED: &str = "Haswell-noTSX,-cx16,-pcid,-x2apic,-tsc-deadline,-invpcid";

/// The least memory that the machine gets unless told, MiB.
const MEMORY: u64 = 1024;

/// A machine that boots a build.
#[derive(Debug)]
pub struct Machine {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The ramdisk.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
    /// Size of the memory, MiB.
    pub memory: u64,
    /// Whether the host's CPU runs the guest, or QEMU translates it.
    pub kvm: Kvm,
    /// Whether it has a network card, behind QEMU's own NAT.
    pub net: bool,
    /// A UEFI firmware in place of QEMU's BIOS.
    pub efi: Option<PathBuf>,
}

/// When KVM is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kvm {
    /// If this user may, and then without it if QEMU fails: there are hosts that have it and where it does not work.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Machine {
    /// The machine for a build, with enough memory for its ramdisk, which is there twice while the kernel unpacks it.
    ///
    /// # Errors
    ///
    /// A directory without a build, or one for other machines than x86-64.
    pub fn of_build(directory: &Path) -> Result<Self> {
        let manifest = manifest::read(directory)?;
        ensure!(
            manifest.system == "x86_64-linux",
            "{} is for {}, and firn boots x86_64-linux only; start {QEMU}'s sister for it by hand",
            directory.display(),
            manifest.system
        );
        let initrd = directory.join("initrd");
        let bytes = fs::metadata(&initrd).with_context(|| format!("looking at {}", initrd.display()))?.len();
        Ok(Self {
            kernel: directory.join("bzImage"),
            initrd,
            cmdline: manifest.cmdline,
            memory: MEMORY.max((bytes >> 20) * 2 + 512),
            kvm: Kvm::Auto,
            net: false,
            efi: None,
        })
    }

    /// Runs it until it switches itself off. With a terminal on standard input that is its console; without one the console
    /// is shown and nobody types.
    ///
    /// # Errors
    ///
    /// No QEMU, one that fails, or a signal to this process. How the boot goes is no error: it is on the console.
    pub fn run(&self) -> Result<()> {
        let terminal = io::stdin().is_terminal();
        if terminal {
            eprintln!("The keys Ctrl-a x end the machine, whatever it does.");
        }
        let kvm = self.kvm == Kvm::On || (self.kvm == Kvm::Auto && kvm_is_there());
        let mut status = self.start(terminal, kvm)?;
        if !status.success() && kvm && self.kvm == Kvm::Auto {
            eprintln!("firn: KVM is there and does not work ({QEMU}: {status}); going on without it");
            status = self.start(terminal, false)?;
        }
        ensure!(status.success(), "{QEMU} failed ({status}); its reason is above");
        Ok(())
    }

    /// The command that runs it, its console on standard output; and on standard input, if that is a terminal.
    #[must_use]
    pub fn command(&self, terminal: bool, kvm: bool) -> Command {
        let mut command = Command::new(QEMU);
        command.args(self.arguments(terminal, kvm));
        if !terminal {
            command.stdin(Stdio::null());
        }
        command
    }

    fn start(&self, terminal: bool, kvm: bool) -> Result<ExitStatus> {
        let spawned = self.command(terminal, kvm).spawn();
        let mut child = spawned.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::Error::new(error)
                .context(format!("there is no {QEMU} on the PATH; install QEMU (Debian: apt install qemu-system-x86)")),
            _ => anyhow::Error::new(error).context(format!("running {QEMU}")),
        })?;
        wait(&mut child).with_context(|| format!("waiting for {QEMU}"))
    }

    fn arguments(&self, terminal: bool, kvm: bool) -> Vec<OsString> {
        let memory = format!("{}M", self.memory);
        let words = format!("{OWN_WORDS} {}", self.cmdline);
        let (accel, cpu) = if kvm { ("kvm", "host") } else { ("tcg", TRANSLATED) };
        let serial = if terminal { "mon:stdio" } else { "stdio" };
        let nic = if self.net { "user,model=virtio-net-pci" } else { "none" };
        let mut arguments: Vec<OsString> = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
            .into_iter()
            .chain(["-accel", accel, "-cpu", cpu, "-m", &memory, "-nic", nic, "-serial", serial, "-append", &words])
            .map(Into::into)
            .collect();
        arguments.extend(["-kernel".into(), self.kernel.clone().into(), "-initrd".into(), self.initrd.clone().into()]);
        if let Some(firmware) = &self.efi {
            arguments.extend(["-bios".into(), firmware.clone().into()]);
        }
        arguments
    }
}

/// Waits for the end of the machine, and brings it about when this process is asked to end. QEMU is asked, too: it leaves
/// the terminal as it found it.
fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            interrupt::check()?;
            return Ok(status);
        }
        if interrupt::check().is_err() && !asked {
            kill_process(Pid::from_child(child), Signal::TERM)?;
            asked = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether this user may use KVM. That it works is another question, which only a guest can answer.
fn kvm_is_there() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = |system: &str| {
            let json = format!(r#"{{"system": "{system}", "cmdline": "init=/x console=tty0"}}"#);
            fs::write(directory.path().join("manifest.json"), json).unwrap();
            Machine::of_build(directory.path())
        };
        assert!(manifest("aarch64-linux").unwrap_err().to_string().contains("boots x86_64-linux only"));
        assert!(manifest("x86_64-linux").unwrap_err().to_string().contains("initrd"));

        let initrd = fs::File::create(directory.path().join("initrd")).unwrap();
        assert_eq!(manifest("x86_64-linux").unwrap().memory, 1024);
        initrd.set_len(1 << 30).unwrap();
        let machine = manifest("x86_64-linux").unwrap();
        assert_eq!(machine.memory, 2560);
        let arguments: Vec<_> =
            machine.arguments(false, false).iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let after = |word: &str| &arguments[arguments.iter().position(|found| found == word).unwrap() + 1];
        assert_eq!(after("-append"), &format!("{OWN_WORDS} init=/x console=tty0"));
        assert_eq!((after("-nic").as_str(), after("-serial").as_str()), ("none", "stdio"));
        assert_eq!((after("-accel").as_str(), after("-m").as_str()), ("tcg", "2560M"));
    }
}
