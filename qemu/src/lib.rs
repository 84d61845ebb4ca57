//! A machine as a value: what it boots goes in, what it said and how it ended come out.
//!
//! The first serial port (`ttyS0`) is the console. The second one (`ttyS1`) takes a report that a program in the guest
//! writes, apart from whatever else is printed. There is no display, and a network only for who boots from it: the machine then
//! sees this host as 10.0.2.2, its 127.0.0.1, and nobody sees the machine.

mod accel;
pub mod marks;
pub mod steps;
pub mod uefi;

use accel::Accel;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;
use tempfile::NamedTempFile;

const QEMU: &str = "qemu-system-x86_64";

/// The kernel talks to the only console there is, from its first line on: earlyprintk comes before any `quiet` or `loglevel=`
/// and shows the start of the log, so that a machine that says nothing has not started. A panic ends the machine (a reboot
/// does, with `-no-reboot`) instead of leaving it to the time limit. The last one of a word wins: these can be overridden.
const OWN_WORDS: &str = "earlyprintk=ttyS0 console=ttyS0 panic=-1";

/// What [`Exit::TimedOut`] looks like: the exit status of timeout(1) when its signal was enough, and when it took SIGKILL.
const TIMED_OUT: [i32; 2] = [124, 128 + 9];

/// A machine with one CPU that has not started yet.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Who brings kernel, ramdisk and command line into it.
    pub loader: Loader,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The ramdisk.
    pub initrd: Option<PathBuf>,
    /// Contents of its disks: `vda`, `vdb`, …, for a guest that has drivers for virtio.
    pub disks: Vec<PathBuf>,
    /// Words for the kernel, after those that the machine itself needs.
    pub cmdline: String,
    /// Size of the memory, MiB.
    pub memory_mib: u32,
    /// After this time the machine is switched off.
    pub time_limit: Duration,
    /// Whether the guest's clock counts instructions, 1 ns each, so that its times repeat whatever the host does. Never
    /// with KVM, then.
    pub counted: bool,
    /// Whether the console is shown on standard output while the machine runs.
    pub show: bool,
    /// What somebody at the console does: when it shows the first text, they type the second; then the next pair.
    pub dialogue: Vec<(String, String)>,
}

/// A boot loader. Any but QEMU itself finds kernel, ramdisk and command line by its own means, and those of the [`Machine`] do
/// not get into it; its kernel serves to find out how fast the host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loader {
    /// None: QEMU puts everything into memory.
    Qemu,
    /// iPXE in the ROM of the network card.
    Ipxe {
        /// What it gets by TFTP.
        directory: PathBuf,
        /// The script there that it starts.
        script: String,
        /// A firmware for UEFI; without it, a PC's BIOS.
        firmware: Option<PathBuf>,
    },
    /// UEFI, from a disk.
    Uefi {
        /// The firmware, such as OVMF.
        firmware: PathBuf,
        /// What is on the disk; it starts `EFI/BOOT/BOOTX64.EFI` there, or `startup.nsh` in its shell.
        directory: PathBuf,
        /// Whether there is a network card, too, without a ROM.
        network: bool,
    },
    /// UEFI, from a web server.
    Http {
        /// The code of a firmware whose variables are a file of their own, such as `OVMF_CODE.fd`.
        firmware: PathBuf,
        /// Its variables, as [`uefi::variables`] makes them. They stay as they are.
        variables: PathBuf,
    },
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The guest switched it off, or wanted to boot again.
    Ended,
    /// It still ran when its time was over.
    TimedOut,
}

/// What is left of a machine that ran.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// All that came out of the first serial port.
    pub console: String,
    /// All that came out of the second serial port.
    pub report: Vec<u8>,
    /// How it ended.
    pub exit: Exit,
}

impl Machine {
    /// A machine with this kernel, nothing else to boot, 1 GiB of memory and five minutes of time.
    #[must_use]
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            loader: Loader::Qemu,
            kernel: kernel.into(),
            initrd: None,
            disks: Vec::new(),
            cmdline: String::new(),
            memory_mib: 1024,
            time_limit: Duration::from_mins(5),
            counted: false,
            show: false,
            dialogue: Vec::new(),
        }
    }

    /// A machine that boots what `firn build` made, with the command line that it made for it.
    ///
    /// # Errors
    ///
    /// A directory without a `manifest.json` that has a `cmdline`.
    pub fn of_build(directory: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Manifest {
            cmdline: String,
        }

        let path = directory.join("manifest.json");
        let manifest = fs::read(&path)
            .map_err(anyhow::Error::new)
            .and_then(|json| Ok(serde_json::from_slice::<Manifest>(&json)?))
            .with_context(|| format!("{}: give a directory that `firn build` made", path.display()))?;
        Ok(Self {
            initrd: Some(directory.join("initrd")),
            cmdline: manifest.cmdline,
            ..Self::new(directory.join("bzImage"))
        })
    }

    /// Adds words for the kernel.
    pub fn append(&mut self, words: &str) {
        self.cmdline.push(' ');
        self.cmdline.push_str(words);
    }

    /// Has somebody type `keys` when the console shows `text`, after what they typed before.
    pub fn when(&mut self, text: &str, keys: &str) {
        self.dialogue.push((text.into(), keys.into()));
    }

    /// Runs the machine until it switches itself off or its time is over. The QEMU command goes to standard error.
    ///
    /// # Errors
    ///
    /// A machine that did not start: no QEMU, one that fails, or a kernel that said nothing at all. What goes wrong in the
    /// guest after that is no error: it is in the [`Outcome`].
    pub fn run(&self) -> Result<Outcome> {
        let accel = if self.counted { Accel::Counted } else { accel::choose(&self.kernel)? };
        self.run_with(accel)
    }

    fn run_with(&self, accel: Accel) -> Result<Outcome> {
        let console = temporary_file()?;
        let report = temporary_file()?;
        let errors = temporary_file()?;

        let mut qemu = self.arguments(accel);
        // The console is standard output, which is a file here: unlike a pipe it never makes the guest wait. A person
        // who repeats the command sees it on the terminal.
        qemu.extend(["-serial", "stdio", "-serial"].map(OsString::from));
        qemu.push([OsStr::new("file:"), report.path().as_os_str()].into_iter().collect());
        print_command(&qemu);

        // Not this process but timeout(1) keeps the time: QEMU then ends in time even if this process is killed before.
        // In the foreground: so that an interrupt from the terminal reaches QEMU, too.
        let child = Command::new("timeout")
            .args(["--foreground", "--kill-after=5", &self.time_limit.as_secs_f64().to_string()])
            .args(&qemu)
            .stdin(Stdio::piped())
            .stdout(console.reopen()?)
            .stderr(errors.reopen()?)
            .spawn()
            .context("running timeout(1) of coreutils")?;
        let status = follow(child, console.reopen()?, self.show, &self.dialogue)?;

        let console = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
        let report = fs::read(&report)?;
        let exit = match status.code() {
            Some(0) => Exit::Ended,
            Some(code) if TIMED_OUT.contains(&code) => Exit::TimedOut,
            _ => bail!(
                "{}: {QEMU} failed ({status}): {}",
                if console.is_empty() { "the machine did not start" } else { "the machine broke down" },
                fs::read_to_string(&errors)?.trim()
            ),
        };
        if console.is_empty() && report.is_empty() {
            bail!(
                "the machine did not start: nothing came out of its serial ports before it {}; is {} a kernel for x86-64 \
                 with a serial console?",
                match exit {
                    Exit::Ended => "ended",
                    Exit::TimedOut => "ran out of time",
                },
                self.kernel.display()
            );
        }
        Ok(Outcome { console, report, exit })
    }

    /// Runs the machine with this process's terminal as its console, for a person and without a time limit. `Ctrl-a x`
    /// ends it, `Ctrl-a c` is QEMU's monitor; all other keys go to the guest.
    ///
    /// # Errors
    ///
    /// No QEMU, or one that fails.
    pub fn interact(&self) -> Result<()> {
        let mut qemu = self.arguments(accel::choose(&self.kernel)?);
        qemu.extend(["-serial", "mon:stdio", "-serial", "null"].map(OsString::from));
        print_command(&qemu);
        eprintln!("The keys Ctrl-a x end the machine, whatever it does.");
        let status = Command::new(QEMU).args(&qemu[1..]).status().with_context(|| format!("running {QEMU}"))?;
        if !status.success() {
            bail!("{QEMU} failed ({status})");
        }
        Ok(())
    }

    /// The QEMU command, without what becomes of the serial ports.
    fn arguments(&self, accel: Accel) -> Vec<OsString> {
        let memory = format!("{}M", self.memory_mib);
        let mut arguments: Vec<OsString> = [QEMU, "-nodefaults", "-no-user-config", "-no-reboot"]
            .into_iter()
            .chain(["-display", "none", "-smp", "1", "-m", &memory])
            .chain(accel.arguments().iter().copied())
            .map(OsString::from)
            .collect();
        arguments.extend(self.loader_arguments(accel));
        for disk in &self.disks {
            arguments.extend(["-drive".into(), format!("if=virtio,format=raw,file={}", value(disk)).into()]);
        }
        arguments
    }

    fn loader_arguments(&self, accel: Accel) -> Vec<OsString> {
        match &self.loader {
            Loader::Qemu => {
                let cmdline = [OWN_WORDS, accel.words(), self.cmdline.trim()].join(" ");
                let kernel = self.kernel.clone().into_os_string();
                let mut arguments = vec!["-append".into(), cmdline.into(), "-kernel".into(), kernel];
                if let Some(initrd) = &self.initrd {
                    arguments.extend(["-initrd".into(), initrd.clone().into_os_string()]);
                }
                arguments
            }
            Loader::Ipxe { directory, script, firmware } => {
                let network = format!("user,id=network,tftp={},bootfile={script}", value(directory));
                // Without graphics the BIOS shows what it says on the serial port.
                let mut arguments: Vec<OsString> =
                    ["-machine", "graphics=off", "-netdev", &network, "-device", "virtio-net-pci,netdev=network"]
                        .map(Into::into)
                        .into();
                arguments.extend(firmware.iter().flat_map(|file| ["-bios".into(), file.clone().into_os_string()]));
                arguments
            }
            Loader::Uefi { firmware, directory, network } => {
                let disk = format!("if=virtio,format=raw,readonly=on,file=fat:{}", value(directory));
                let mut arguments: Vec<OsString> =
                    vec!["-bios".into(), firmware.clone().into(), "-drive".into(), disk.into()];
                if *network {
                    arguments.extend(uefi::CARD.map(Into::into));
                }
                arguments
            }
            Loader::Http { firmware, variables } => {
                let flash =
                    |file: &Path, mode: &str| format!("if=pflash,format=raw,{mode},file={}", value(file)).into();
                let mut arguments: Vec<OsString> = uefi::CARD.map(Into::into).into();
                arguments.extend(["-drive".into(), flash(firmware, "readonly=on")]);
                arguments.extend(["-drive".into(), flash(variables, "snapshot=on")]);
                arguments
            }
        }
    }
}

/// A path as a part of one of QEMU's options, where two commas are one.
fn value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

impl Outcome {
    /// The end of the console's text: what to show of a boot that failed.
    #[must_use]
    pub fn last_words(&self) -> &str {
        let text = self.console.trim_end();
        text.rmatch_indices('\n').nth(LAST_LINES - 1).map_or(text, |(newline, _)| &text[newline + 1..])
    }
}

/// How many lines [`Outcome::last_words`] are.
const LAST_LINES: usize = 30;

fn temporary_file() -> Result<NamedTempFile> {
    NamedTempFile::new().context("making a temporary file for what the machine says")
}

/// Prints a command so that it can be pasted into a shell.
fn print_command(command: &[OsString]) {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    // There is no way to write a NUL in a shell, and no argument has one.
    if let Ok(line) = shlex::try_join(words.iter().map(AsRef::as_ref)) {
        eprintln!("{line}");
    }
}

/// Waits for the end of `child`. Shows the console until then, and types what the dialogue wants.
fn follow(
    mut child: Child,
    mut console: File,
    mut show: bool,
    mut dialogue: &[(String, String)],
) -> io::Result<ExitStatus> {
    let mut keyboard = child.stdin.take();
    let mut unanswered = Vec::new();
    loop {
        let status = child.try_wait()?;
        let before = unanswered.len();
        console.read_to_end(&mut unanswered)?;
        // A reader that goes away (`| head`) is no reason to give up the machine.
        show = show && io::stdout().write_all(&unanswered[before..]).and_then(|()| io::stdout().flush()).is_ok();
        if let ([(text, keys), rest @ ..], Some(keyboard)) = (dialogue, &mut keyboard)
            && let Some(found) = unanswered.windows(text.len()).position(|window| window == text.as_bytes())
        {
            unanswered.drain(..found + text.len());
            dialogue = rest;
            // A machine that is gone does not read it.
            keyboard.write_all(keys.as_bytes()).or_else(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error),
            })?;
        }
        match status {
            Some(status) => return Ok(status),
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_brings_its_command_line() {
        let directory = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Machine::of_build(directory.path()).unwrap_err());
        assert!(error.contains("manifest.json") && error.contains("firn build"), "{error}");

        fs::write(directory.path().join("manifest.json"), r#"{"firn": "1", "cmdline": "init=/nix/store/x/init"}"#)
            .unwrap();
        let mut machine = Machine::of_build(directory.path()).unwrap();
        machine.append("quiet");
        assert_eq!(machine.cmdline, "init=/nix/store/x/init quiet");
        assert_eq!(machine.initrd.as_deref(), Some(&*directory.path().join("initrd")));
    }

    #[test]
    fn the_machines_own_words_can_be_overridden() {
        let machine = Machine { cmdline: "panic=0".into(), ..Machine::new("bzImage") };
        let arguments = machine.arguments(Accel::Tcg);
        let append = arguments.iter().position(|argument| argument == "-append").unwrap();
        let words = arguments[append + 1].to_str().unwrap();
        assert!(words.starts_with(OWN_WORDS) && words.ends_with("panic=0"), "{words}");
    }

    #[test]
    fn last_words_are_lines_from_the_end() {
        let said = |console: String| Outcome { console, report: Vec::new(), exit: Exit::Ended }.last_words().to_owned();
        assert_eq!(said("one\ntwo\n".into()), "one\ntwo");
        let many: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(said(many.join("\n") + "\n\n"), many[100 - LAST_LINES..].join("\n"));
    }
}
