//! The kernel command line: its words on each way into the machine, and how many of them the kernel takes.

use crate::fixture::{Build, run};
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::limits::{Loader, ensure_bootable};
use firn::contract::manifest::Manifest;
use firn::formats::kernel_line::KernelLine;
use qemu::Machine;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Kernel parameters that boot loaders and shells would read otherwise. Those after `--` are for init.
const WORDS: &[&str] = &[
    "dyndbg=file drivers/usb/* +p",
    "way.a=1 ; 2",
    "way.b=x  y",
    "#way.c",
    "||",
    "&&",
    ";",
    "way.d=\\",
    "way.e=${x",
    "way.f=$x 'y' `z`",
    "way.g=\"  quoted # twice\"",
    "way.h\\",
    "--",
    "for  init",
    "|| way.i",
];

/// A copy of a build, with these words on its command line.
pub fn with_words(build: &Build) -> (TempDir, BuildDirectory) {
    with_words_and(build, |_| String::new())
}

/// The same with more words.
pub fn with_words_and(build: &Build, more: impl FnOnce(&BuildDirectory) -> String) -> (TempDir, BuildDirectory) {
    let new = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for file in &build.manifest.files {
        fs::hard_link(build.directory.join(&file.name), new.path().join(&file.name)).unwrap();
    }
    let mut line = KernelLine::of_text(&build.manifest.cmdline).unwrap();
    line.append(KernelLine::of_words(WORDS).unwrap());
    let open = |line: &KernelLine| {
        let manifest = Manifest { cmdline: line.to_string(), ..build.manifest.clone() };
        fs::write(new.path().join("manifest.json"), manifest.to_json().unwrap()).unwrap();
        BuildDirectory::open(new.path()).unwrap()
    };
    line.append(KernelLine::of_text(&more(&open(&line))).unwrap());
    let changed = open(&line);
    (new, changed)
}

/// More words, and one of such a length that the command line has so many bytes.
pub fn filled(build: &BuildDirectory, words: &str, bytes: usize) -> String {
    let length = with(build, &format!("{words} way.fill=")).len();
    format!("{words} way.fill={}", "x".repeat(bytes - length))
}

/// The command line of a build with more words.
pub fn with(build: &BuildDirectory, words: &str) -> String {
    build.cmdline(words, Loader::None).unwrap().to_string()
}

/// Boots a kernel alone with `init=` and more words, and compares the end of the boot with the builder's opinion.
fn takes(kernel: &str, words: &[String], fits: bool) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu/kernel");
    let directory = run(Command::new(script).arg(kernel)).unwrap();
    let image = PathBuf::from(directory.lines().last().unwrap()).join("bzImage");
    let line = KernelLine::of_words(&[&["init=/x".to_owned()], words].concat()).unwrap();
    let opinion = ensure_bootable(&line, &image, Loader::None).map_err(|error| error.to_string());
    assert_eq!(opinion.is_ok(), fits, "{opinion:?}: {line}");

    let machine = Machine { time_limit: Duration::from_mins(2), cmdline: line.to_string(), ..Machine::new(image) };
    let console = machine.run().unwrap().console;
    // Without a root the kernel panics in both cases.
    assert!(console.contains("Kernel panic"), "no end of Linux {kernel} with {line}:\n{console}");
    assert_eq!(console.contains("Too many boot "), !fits, "Linux {kernel} with {line}:\n{console}");
}

fn numbered(count: usize, end: &str) -> Vec<String> {
    (1..=count).map(|number| format!("w{number}{end}")).collect()
}

/// Parameters that the kernel takes for itself, and some of modules.
const KNOWN: &str = "quiet loglevel=7 ro rootdelay=0 nosmt audit=0 consoleblank=0 ignore_loglevel mitigations=off \
    init_on_alloc=0 module-blacklist=x printk.time=1 nvme.x=1 noresume random.trust_cpu=on hung_task_panic=1 lsm=x psi=1 nowatchdog \
    transparent_hugepage=never threadirqs retain_initrd rootfstype=ramfs cgroup_disable=x numa=off raid.x";

fn and_known(mut words: Vec<String>) -> Vec<String> {
    words.extend(KNOWN.split_whitespace().map(Into::into));
    words
}

#[test]
fn c_4_linux_6_1_takes_as_many_words_as_the_builder() {
    takes("6.1", &and_known(numbered(32, "")), true);
    // This kernel reads nopti and passes it to init as well; later ones keep it.
    takes("6.1", &and_known([numbered(32, ""), vec!["nopti".into()]].concat()), false);
}

#[test]
fn c_4_linux_7_takes_as_many_variables_as_the_builder() {
    takes("7", &and_known(numbered(31, "=1")), true);
    takes("7", &and_known(numbered(32, "=1")), false);
}
