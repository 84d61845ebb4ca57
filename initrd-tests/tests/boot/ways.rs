//! The ways into a machine: each boots the demo system with the builder's files for it.

use crate::command_lines::{filled, with, with_words, with_words_and};
use crate::fixture::{Build, Fixture, boot, report, run, with_appended};
use crate::formats::erofs_6_12;
use crate::systemd::PREPARE_ROOT_6_12;
use crate::{LINUX_6_1, LINUX_6_12, assert_succeeded};
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::ipxe::{self, Form};
use firn::build::ways::{kexec, uki};
use firn::contract::parameters::RETAIN;
use firn::contract::place::{self, ZERO_COPY};
use firn::host::progress::Progress;
use initrd_tests::Report;
use qemu::{Loader, Machine, uefi};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The kernel parameters of every boot here: these machines do not use QEMU's command line.
const WORDS: &str = "panic=-1 probe=facts";

/// A web server for one directory, on the loopback interface.
pub struct Server {
    process: Child,
    /// The port on which it listens.
    pub port: String,
}

impl Server {
    /// Starts the server.
    pub fn new(directory: &Path) -> Self {
        let mut process = Command::new("python3")
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0", "--directory"])
            .arg(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3; run qemu/setup");
        // "Serving HTTP on 127.0.0.1 port 40123 (http://…) ..."
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split(' ').nth(5).expect(&line).to_owned();
        Self { process, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).unwrap();
    }
}

/// A file of a Debian package, or the file that an environment variable names.
pub fn installed(variable: &str, path: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| path.into(), PathBuf::from)
}

pub fn ovmf() -> PathBuf {
    installed("FIRN_OVMF", "/usr/share/ovmf/OVMF.fd")
}

/// A file of a Debian package that is not installed: the newest version is unpacked.
fn unpacked(work: &Path, package: &str, path: &str) -> PathBuf {
    let unpack = Path::new(env!("CARGO_MANIFEST_DIR")).join("unpack");
    run(Command::new(unpack).args(["sid", package]).arg(work)).unwrap();
    work.join(path)
}

/// The build that boots each way: a system with a zero-copy store image.
fn build() -> &'static Build {
    LINUX_6_12.build()
}

fn built() -> BuildDirectory {
    BuildDirectory::open(&build().directory).unwrap()
}

fn machine(loader: Loader) -> Machine {
    let kernel = build().directory.join("bzImage");
    Machine { loader, time_limit: Duration::from_mins(4), ..Machine::new(kernel) }
}

/// Boots with TFTP, a script that adds parameters, and HTTP.
fn by_ipxe(form: Form, firmware: Option<PathBuf>) {
    let work = tempfile::tempdir().unwrap();
    let (tree, tftp) = (work.path().join("tree"), work.path().join("tftp"));
    let (_directory, built) = with_words(build());
    ipxe::tree(&built, &tree, form, None, Progress::Quiet).unwrap();
    let server = Server::new(&tree);
    let url = format!("http://10.0.2.2:{}/netboot.ipxe", server.port);
    fs::create_dir(&tftp).unwrap();
    fs::write(tftp.join("menu"), format!("#!ipxe\nset cmdline {WORDS} way=ipxe\nchain {url}\n")).unwrap();
    // The name of the kernel, and that of the ramdisk.
    let kernel = if firmware.is_some() { "bzImage " } else { "" };
    let ramdisk = if form == Form::Split { "initrd.magic" } else { "zero-copy.cpio initrd=initrd" };
    let loader = Loader::Ipxe { directory: tftp, script: "menu".into(), firmware };
    let report = boot(&machine(loader)).unwrap();
    let expected = with(&built, &format!("{WORDS} way=ipxe"));
    assert_eq!(report.cmdline, format!("{kernel}initrd={ramdisk} {expected}"));
    runs(&report, build());
}

#[test]
fn c_5_ipxe_in_a_bios_boots_the_fat_form_with_every_word() {
    by_ipxe(Form::Combined, None);
}

/// iPXE makes an archive of the file alone, without its directories.
#[test]
fn a_7_ipxe_adds_a_file_of_the_host() {
    let work = tempfile::tempdir().unwrap();
    let (tree, tftp) = (work.path().join("tree"), work.path().join("tftp"));
    ipxe::tree(&built(), &tree, Form::Combined, None, Progress::Quiet).unwrap();
    fs::write(tree.join("machine-id"), "5ca1ab1e\n").unwrap();
    fs::write(tree.join("test"), "stat --format '%a %n' /etc/machine-id && cat /etc/machine-id && ls -A /root\n")
        .unwrap();
    let script = fs::read_to_string(tree.join("netboot.ipxe")).unwrap();
    let (before, boot_line) = script.trim_end().rsplit_once('\n').unwrap();
    assert!(boot_line.starts_with("boot"), "{script}");
    let added = "initrd machine-id /firn/root/etc/machine-id mode=0444\ninitrd test /firn/root/firn-test";
    fs::write(tree.join("host.ipxe"), format!("{before}\n{added}\n{boot_line}\n")).unwrap();
    let server = Server::new(&tree);
    fs::create_dir(&tftp).unwrap();
    let menu = format!("#!ipxe\nset cmdline panic=-1 probe=host\nchain http://10.0.2.2:{}/host.ipxe\n", server.port);
    fs::write(tftp.join("menu"), menu).unwrap();
    let report = boot(&machine(Loader::Ipxe { directory: tftp, script: "menu".into(), firmware: None })).unwrap();
    let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_eq!(script.stdout, "444 /etc/machine-id\n5ca1ab1e\n", "{script:#?}");
}

#[test]
fn c_5_ipxe_in_a_bios_boots_the_split_form_with_every_word() {
    by_ipxe(Form::Split, None);
}

#[test]
fn c_5_ipxe_in_uefi_boots_the_fat_form_with_every_word() {
    // Not the split form: QEMU's own iPXE is from 2019 and loads only one file for a UEFI kernel.
    by_ipxe(Form::Combined, Some(ovmf()));
}

/// A machine that starts the newest iPXE from a disk with this script.
fn with_new_ipxe(work: &Path, script: &str) -> Machine {
    let disk = work.join("disk");
    let directory = disk.join("EFI/BOOT");
    fs::create_dir_all(&directory).unwrap();
    let ipxe = unpacked(work, "ipxe", "usr/lib/ipxe/ipxe-amd64.efi");
    fs::copy(ipxe, directory.join("BOOTX64.EFI")).unwrap();
    fs::write(directory.join("autoexec.ipxe"), format!("#!ipxe\ndhcp\n{script}")).unwrap();
    machine(Loader::Uefi { firmware: ovmf(), directory: disk, network: true })
}

#[test]
fn c_5_ipxe_in_uefi_boots_the_split_form_with_every_word() {
    let (work, build) = (tempfile::tempdir().unwrap(), erofs_6_12());
    let tree = work.path().join("tree");
    let (_directory, changed) = with_words(build);
    ipxe::tree(&changed, &tree, Form::Split, None, Progress::Quiet).unwrap();
    let server = Server::new(&tree);
    let script = format!("set cmdline {WORDS}\nchain http://10.0.2.2:{}/netboot.ipxe\n", server.port);
    let report = boot(&with_new_ipxe(work.path(), &script)).unwrap();
    runs(&report, build);
    assert_eq!(store(&report), "erofs");
    assert_eq!(report.cmdline, format!("bzImage initrd=initrd.magic {}", with(&changed, WORDS)));
}

/// This system runs, its store image is in the right place, and stage 1 has no warnings.
pub fn runs(report: &Report, build: &Build) {
    let is_retained = report.cmdline.split(' ').any(|word| word == RETAIN);
    let source = if is_retained { place::INITRD } else { build.manifest.images[0].path.as_str() };
    assert_eq!(report.boot["images"][0]["source"], source);
    assert_eq!(report.kernel_release, build.manifest.kernel_release);
    assert_eq!(report.boot["init"], build.manifest.init.as_str());
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

/// The file system of the store image.
pub fn store(report: &Report) -> &str {
    &report.mounts.iter().find(|mount| mount.target == "/nix/.ro-store").unwrap().kind
}

#[test]
fn uefi_starts_the_kernel_by_itself() {
    let disk = tempfile::tempdir().unwrap();
    for file in ["bzImage", ZERO_COPY, "initrd"] {
        fs::copy(build().directory.join(file), disk.path().join(file)).unwrap();
    }
    let line =
        format!("fs0:\\bzImage initrd=\\{ZERO_COPY} initrd=\\initrd {RETAIN} {} {WORDS}\r\n", build().manifest.cmdline);
    fs::write(disk.path().join("startup.nsh"), line).unwrap();
    let loader = Loader::Uefi { firmware: ovmf(), directory: disk.path().into(), network: false };
    runs(&boot(&machine(loader)).unwrap(), build());
}

#[test]
fn c_5_uefi_boots_a_unified_kernel_image_with_every_word() {
    let disk = tempfile::tempdir().unwrap();
    let directory = disk.path().join("EFI/BOOT");
    fs::create_dir_all(&directory).unwrap();
    let (_directory, built) = with_words(build());
    // U+00E0 has a byte that is white space for the kernel. The line is nearly as long as the kernel reads:
    // stage 1 warns about one that may be cut.
    let append = filled(&built, &format!("{WORDS} way=\"à é\""), 2046);
    let options = uki::UkiOptions { append: append.clone(), ..uki::UkiOptions::default() };
    uki::image(&built, &directory.join("BOOTX64.EFI"), &options, Progress::Quiet).unwrap();
    let loader = Loader::Uefi { firmware: ovmf(), directory: disk.path().into(), network: false };
    let report = boot(&machine(loader)).unwrap();
    assert_eq!(report.cmdline, with(&built, &append));
    runs(&report, build());
}

#[test]
fn uefi_fetches_a_unified_kernel_image() {
    let work = tempfile::tempdir().unwrap();
    let options = uki::UkiOptions { append: format!("{WORDS} way=http"), ..uki::UkiOptions::default() };
    uki::image(&built(), &work.path().join("nixos.efi"), &options, Progress::Quiet).unwrap();
    let server = Server::new(work.path());
    let empty = installed("FIRN_OVMF_VARS", "/usr/share/OVMF/OVMF_VARS.fd");
    let url = format!("http://10.0.2.2:{}/nixos.efi", server.port);
    let variables = work.path().join("variables");
    fs::write(&variables, uefi::variables(&empty, &url).unwrap()).unwrap();
    let firmware = installed("FIRN_OVMF_CODE", "/usr/share/OVMF/OVMF_CODE.fd");
    let report = boot(&machine(Loader::Http { firmware, variables })).unwrap();
    assert!(report.cmdline.ends_with(" way=http"), "{}", report.cmdline);
    runs(&report, build());
}

#[test]
fn a_unified_kernel_image_gets_the_store_from_the_boot_loader() {
    let (work, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stub = unpacked(work.path(), "systemd-boot-efi", "usr/lib/systemd/boot/efi/linuxx64.efi.stub");
    let options = uki::UkiOptions { stub: Some(stub), without_image: true, ..uki::UkiOptions::default() };
    uki::image(&built(), tree.path(), &options, Progress::Quiet).unwrap();
    let manifest = &build().manifest;
    let [image] = &*manifest.images else { panic!("{manifest:#?}") };
    fs::copy(build().directory.join(&image.file), tree.path().join("image")).unwrap();
    let server = Server::new(tree.path());
    let base = format!("http://10.0.2.2:{}", server.port);
    let script = format!(
        "kernel {base}/nixos.efi {RETAIN} {} {WORDS}\ninitrd {base}/image {} mode=444\nboot\n",
        manifest.cmdline, image.path
    );
    runs(&boot(&with_new_ipxe(work.path(), &script)).unwrap(), build());
}

/// The machine of a fixture with a kexec tree of another system in `/kexec`, and the program kexec.
fn with_tree(fixture: &Fixture, work: &Path, other: &BuildDirectory) -> Machine {
    let tree = work.join("tree-of-kexec");
    kexec::tree(other, &tree, Progress::Quiet).unwrap();
    run(Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("kexec-tools")).arg(&tree)).unwrap();
    with_appended(fixture, work, &format!("mkdir -p firn/root && cp -r '{}' firn/root/kexec", tree.display()))
}

/// The words that the probe gives to `kexec-boot`.
const NEXT_WORDS: &str = "panic=-1 probe=facts way=\"k e # x\\ec\"";

/// The command line of the next system.
fn next_cmdline(build: &BuildDirectory) -> String {
    with(build, NEXT_WORDS)
}

#[test]
fn c_5_kexec_boots_another_system_with_every_word() {
    let (work, other) = (tempfile::tempdir().unwrap(), erofs_6_12());
    let (_directory, built) = with_words_and(other, |changed| {
        let filled = filled(changed, NEXT_WORDS, 2016);
        filled.strip_prefix(NEXT_WORDS).unwrap().to_owned()
    });
    let mut machine = with_tree(&LINUX_6_1, work.path(), &built);
    machine.append("probe=kexec");
    let report = boot(&machine).unwrap();
    runs(&report, other);
    assert_eq!(report.cmdline, next_cmdline(&built));
    assert_eq!(store(&report), "erofs");
}

#[test]
fn kexec_is_left_to_systemd() {
    let (work, other) = (tempfile::tempdir().unwrap(), LINUX_6_1.build());
    let built = BuildDirectory::open(&other.directory).unwrap();
    let mut machine = with_tree(&PREPARE_ROOT_6_12, work.path(), &built);
    machine.append("probe=kexec");
    let outcome = machine.run().unwrap();
    let report = report(&outcome).unwrap();
    runs(&report, other);
    assert_eq!(report.cmdline, next_cmdline(&built));
    // Before that, systemd stopped the services; its colours are between the words.
    let ended = ["Stopped target", "umount.target", "systemd-kexec.service"];
    assert!(ended.iter().all(|words| outcome.console.contains(words)), "{}", outcome.console);
}

#[test]
fn kexec_needs_memory_and_a_signature() {
    let work = tempfile::tempdir().unwrap();
    let built = BuildDirectory::open(&LINUX_6_1.build().directory).unwrap();
    let mut machine = with_tree(&LINUX_6_1, work.path(), &built);
    machine.memory_mib = 512;
    machine.append("probe=kexec-refused firn.root.size=90%");
    let report = boot(&machine).unwrap();
    let [fill, small, empty, locked] = &*report.commands else { panic!("{:#?}", report.commands) };
    assert_succeeded(fill);
    assert_eq!(small.status, Some(1), "{small:#?}");
    assert!(small.stderr.contains("MiB of memory are available, and the boot needs"), "{small:#?}");
    assert_succeeded(empty);
    assert_eq!(locked.status, Some(1), "{locked:#?}");
    assert!(
        locked.stderr.contains("it is locked down, and loads only kernels with a trusted signature"),
        "{locked:#?}"
    );
}

#[test]
fn a_foreign_reader_finds_what_a_unified_kernel_image_is_made_of() {
    let directory = tempfile::tempdir().unwrap();
    uki::image(&built(), directory.path(), &uki::UkiOptions::default(), Progress::Quiet).unwrap();
    let headers = run(Command::new("objdump").arg("-h").arg(directory.path().join("nixos.efi"))).unwrap();
    for section in [".text", ".sbat", ".osrel", ".uname", ".cmdline", ".linux", ".initrd"] {
        assert!(headers.contains(&format!(" {section} ")), "no {section} in {headers}");
    }
}
