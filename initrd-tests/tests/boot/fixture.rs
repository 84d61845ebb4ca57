//! The systems that the tests boot: each built, packed and booted once, when the first test asks for it.

use anyhow::{Context, Result, ensure};
use firn::build;
use firn::build::store::packing::Packing;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::limits::Loader;
use firn::contract::manifest::Manifest;
use firn::contract::place::ZERO_COPY;
use firn::host::progress::Progress;
use initrd_tests::Report;
use qemu::{Exit, Machine, Outcome};
use std::env;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The demo system of a kind, with one of the kernels.
pub struct Fixture {
    /// The kind of the system (`system/build --kind`).
    pub kind: &'static str,
    /// The name of the kernel (`qemu/kernel`).
    pub kernel: &'static str,
    /// The threads in the options of a mounted squashfs: `,threads=8`, or empty if the kernel does not say.
    pub threads: &'static str,
    /// The groups of commands for the probe.
    probe: &'static str,
    build: OnceLock<Result<Build>>,
    report: OnceLock<Result<Report>>,
}

/// A system and its build.
#[derive(Clone)]
pub struct Build {
    /// The directory of the build.
    pub directory: PathBuf,
    /// The manifest of the build.
    pub manifest: Manifest,
    /// The store paths of the system, sorted, from the build machine's Nix.
    pub closure: Vec<String>,
}

impl Build {
    /// Whether it has the file for zero copy.
    pub fn has_zero_copy(&self) -> bool {
        self.manifest.files.iter().any(|file| *file.name == *ZERO_COPY)
    }

    /// The machine that boots it as firn's own boot files do: zero copy, if the build has the file for it, with one ramdisk in the
    /// directory `work`. [`Machine::of_build`] boots the ramdisk `initrd` alone.
    ///
    /// # Errors
    ///
    /// Those of opening the build and of writing.
    pub fn machine(&self, work: &Path) -> Result<Machine> {
        let mut machine = Machine::of_build(&self.directory)?;
        if self.has_zero_copy() {
            let build = BuildDirectory::open(&self.directory)?;
            let initrd = work.join("initrd");
            io::copy(&mut build.one_ramdisk(true)?.open()?, &mut File::create(&initrd)?)?;
            machine.initrd = Some(initrd);
            machine.cmdline = build.cmdline("", Loader::Any)?.to_string();
        }
        Ok(machine)
    }
}

impl Fixture {
    /// The classic demo system with a kernel of this name (`qemu/kernel`).
    pub const fn new(kernel: &'static str) -> Self {
        Self::of_kind("classic", kernel, "userns,nix")
    }

    /// A demo system with a kernel of this name, and the groups of commands for its probe.
    pub const fn of_kind(kind: &'static str, kernel: &'static str, probe: &'static str) -> Self {
        Self { kind, kernel, threads: "", probe, build: OnceLock::new(), report: OnceLock::new() }
    }

    /// The same with other [`Fixture::threads`].
    pub const fn with_threads(mut self, threads: &'static str) -> Self {
        self.threads = threads;
        self
    }

    /// The packed system. Panics if it cannot be built.
    pub fn build(&self) -> &Build {
        let build = self.build.get_or_init(|| build(self.kind, self.kernel));
        let name = || format!("{} system with kernel {}", self.kind, self.kernel);
        build.as_ref().unwrap_or_else(|error| panic!("building the {}: {error:#}", name()))
    }

    /// The same system on a machine with several processors.
    pub fn on_processors(&self, processors: u32) -> Self {
        let build = self.build();
        let work = tempfile::tempdir().unwrap();
        let machine = Machine { processors, ..build.machine(work.path()).unwrap() };
        let other = Self { threads: self.threads, ..Self::of_kind(self.kind, self.kernel, self.probe) };
        let other = Self { build: OnceLock::from(Ok(build.clone())), ..other };
        other.report.get_or_init(|| other.boot(machine));
        other
    }

    fn boot(&self, mut machine: Machine) -> Result<Report> {
        machine.append(&format!("probe={}", self.probe));
        boot(&machine)
    }

    /// Whether the store image stays where the boot loader puts it.
    pub fn is_retained(&self) -> bool {
        self.build().has_zero_copy()
    }

    /// The report of the system after a boot with the commands of its probe. Panics if there is no report.
    pub fn report(&self) -> &Report {
        let report = self.report.get_or_init(|| {
            let work = tempfile::tempdir()?;
            self.boot(self.build().machine(work.path())?)
        });
        let name = || format!("{} system with kernel {}", self.kind, self.kernel);
        report.as_ref().unwrap_or_else(|error| panic!("booting the {}: {error:#}", name()))
    }
}

/// Boots a machine and reads its report.
///
/// # Errors
///
/// A machine that did not start, that wrote no report or a broken one, or that did not switch itself off. Without a whole report the
/// boot has failed, no matter what the console shows.
pub fn boot(machine: &Machine) -> Result<Report> {
    report(&machine.run()?)
}

/// Reads the report of a machine that ran.
///
/// # Errors
///
/// As for [`boot`].
pub fn report(outcome: &Outcome) -> Result<Report> {
    let console = || format!("the console ends with:\n{}", outcome.last_words());
    ensure!(!outcome.report.is_empty(), "no report ({:?}); {}", outcome.exit, console());
    // A UEFI firmware uses every serial port as a console and clears the screen there.
    let begin = outcome.report.iter().position(|byte| *byte == b'{').unwrap_or(0);
    let report = serde_json::from_slice(&outcome.report[begin..])
        .with_context(|| format!("a broken report ({:?}); {}", outcome.exit, console()))?;
    ensure!(outcome.exit == Exit::Ended, "the machine wrote its report and did not switch itself off; {}", console());
    Ok(report)
}

fn build(kind: &str, kernel: &str) -> Result<Build> {
    pack(&toplevel(kind, kernel)?, Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("boot-{kernel}-{kind}")), &[])
}

/// Builds the demo system of a kind with a kernel, and returns its store path.
///
/// # Errors
///
/// Those of `system/build`.
pub fn toplevel(kind: &str, kernel: &str) -> Result<String> {
    let system = Path::new(env!("CARGO_MANIFEST_DIR")).join("system/build");
    let probe = env!("CARGO_BIN_EXE_firn-probe");
    let output = run(Command::new(system).args(["--kernel", kernel, "--kind", kind, "--probe", probe]))?;
    Ok(output.lines().last().context("system/build printed no store path")?.to_owned())
}

/// Packs a system into a directory, with modules for devices that may be there.
///
/// # Errors
///
/// Those of the builder.
pub fn pack(toplevel: &str, directory: PathBuf, available_modules: &[&str]) -> Result<Build> {
    let available_modules = available_modules.iter().map(ToString::to_string).collect();
    pack_with(toplevel, directory, |options| build::options::BuildOptions { available_modules, ..options })
}

/// Packs a system into a directory, with other options than those of the fixtures.
///
/// # Errors
///
/// Those of the builder.
pub fn pack_with(
    toplevel: &str,
    directory: PathBuf,
    change: impl FnOnce(build::options::BuildOptions) -> build::options::BuildOptions,
) -> Result<Build> {
    let firn_init = env::var_os("FIRN_INIT")
        .context("FIRN_INIT is not set to the firn-init to test; start the tests with ./initrd-tests/run")?;
    let options = change(build::options::BuildOptions {
        rescue_shell: Some("/bin/busybox".into()),
        // The image is read once or twice, on this machine: only the build time counts.
        packing: Packing {
            compression: Some("zstd -Xcompression-level 1".parse()?),
            block_size: Some(128 << 10),
            ..Packing::default()
        },
        ..build::options::BuildOptions::new(toplevel, &directory, firn_init)
    });
    let manifest = build::build(&options, Progress::Quiet)?;
    let closure = sorted_lines(&run(Command::new("nix-store").args(["--query", "--requisites", toplevel]))?);
    Ok(Build { directory, manifest, closure })
}

/// The machine of a fixture with an archive appended to its ramdisk. As an administrator would, a script makes the files in a new
/// directory, and cpio packs them. A file in the archive replaces the ramdisk's file at the same path.
pub fn with_appended(fixture: &Fixture, work: &Path, script: &str) -> Machine {
    with_appended_to(fixture.build(), work, script)
}

/// The same for a build.
pub fn with_appended_to(build: &Build, work: &Path, script: &str) -> Machine {
    let pack = format!(
        "mkdir tree && cd tree && {script} && find . -print0 | cpio --null --create --format=newc --quiet > ../files && \
         cat \"$0\" ../files > ../initrd"
    );
    let initrd = build.directory.join("initrd");
    run(Command::new("sh").args(["-euc", &pack]).arg(initrd).current_dir(work)).unwrap();
    Machine { initrd: Some(work.join("initrd")), ..Machine::of_build(&build.directory).unwrap() }
}

/// The standard output of a command that succeeds.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The lines of a text in alphabetical order.
pub fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
