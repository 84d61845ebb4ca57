//! `firn inspect` and the other readers on a real build: they agree with other programs, and they find damage.

use anyhow::{Context, Result};
use firn::build::build;
use firn::build::options::BuildOptions;
use firn::build::store::packing::Packing;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::ipxe::{self, Form};
use firn::build::ways::kexec;
use firn::contract::manifest::Manifest;
use firn::contract::plan;
use firn::host::progress::Progress;
use firn::inspect::difference::Difference;
use firn::inspect::ramdisk::Ramdisk;
use firn::inspect::summary::{BuildSummary, Summary};
use firn::inspect::{difference, unpack, verify};
use qemu::Machine;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The demo system and its build.
struct Demo {
    toplevel: String,
    directory: PathBuf,
    manifest: Manifest,
}

fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let system = Path::new(env!("CARGO_MANIFEST_DIR")).join("system/build");
        let probe = env!("CARGO_BIN_EXE_firn-probe");
        let output = run(Command::new(system).args(["--kernel", "6.1", "--kind", "classic", "--probe", probe]));
        let toplevel = output.lines().last().expect("system/build prints a store path").to_owned();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("eyes");
        let manifest = pack(&toplevel, &directory, &[]).unwrap();
        Demo { toplevel, directory, manifest }
    })
}

fn pack(toplevel: &str, directory: &Path, modules: &[&str]) -> Result<Manifest> {
    let firn_init =
        env::var_os("FIRN_INIT").context("FIRN_INIT is not set; start the tests with ./initrd-tests/run")?;
    let options = BuildOptions {
        packing: Packing { compression: Some("zstd -Xcompression-level 1".parse()?), ..Packing::default() },
        modules: modules.iter().map(ToString::to_string).collect(),
        ..BuildOptions::new(toplevel, directory, firn_init)
    };
    build(&options, Progress::Quiet)
}

/// The standard output of a command that succeeds.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The standard output of a script that succeeds, in the directory of the build.
fn shell(script: &str) -> String {
    run(Command::new("sh").args(["-euc", script]).current_dir(&demo().directory))
}

fn inspect(path: &Path) -> BuildSummary {
    match Summary::of(path).unwrap() {
        Summary::Build(build) => *build,
        other => panic!("{other:?}"),
    }
}

#[test]
fn segments_and_members_are_those_of_cpio() {
    let build = inspect(&demo().directory);
    let [small, large] = build.ramdisk.segments.as_slice() else { panic!("{:?}", build.ramdisk.segments) };
    assert_eq!(small.offset, 0);
    let mut names = Vec::new();
    let ramdisk = Ramdisk::open(&demo().directory).unwrap();
    ramdisk
        .walk(&mut |entry, _| {
            names.push(entry.path.display().to_string());
            Ok(())
        })
        .unwrap();
    let foreign = shell(&format!(
        "head --bytes={} initrd | zstd --decompress | cpio --list --quiet; \
         tail --bytes=+{} initrd | cpio --list --quiet",
        small.packed,
        large.offset + 1
    ));
    assert_eq!(names, foreign.lines().collect::<Vec<_>>());
    assert_eq!(large.offset + large.packed, ramdisk.bytes);
}

#[test]
fn the_store_is_that_of_nix_and_unsquashfs() {
    let build = inspect(&demo().directory);
    let [image] = build.ramdisk.images.as_slice() else { panic!("{:?}", build.ramdisk.images) };
    let mut closure: Vec<_> =
        shell(&format!("nix-store --query --requisites {}", demo().toplevel)).lines().map(str::to_owned).collect();
    closure.sort();
    assert_eq!(image.store_paths.iter().map(|path| path.path.clone()).collect::<Vec<_>>(), closure);
    assert_eq!(image.unpacked(), demo().manifest.store_bytes);
    let size = shell(&format!("nix-store --query --size {}", closure[0]));
    assert_eq!(image.store_paths[0].bytes.to_string(), size.trim());

    let foreign = shell(&format!("unsquashfs -offset {} -stat initrd", image.offset.unwrap()));
    for line in [
        format!("Compression {}", image.superblock.compressor),
        format!("Block size {}", image.superblock.block_size),
        format!("Number of inodes {}", image.superblock.inodes),
        format!("Filesystem size {} bytes", image.superblock.used),
    ] {
        assert!(foreign.contains(&line), "no {line:?} in {foreign}");
    }
    // The same image in a separate file.
    let Summary::Image(alone) = Summary::of(&demo().directory.join("nix-store.squashfs")).unwrap() else { panic!() };
    assert_eq!((alone.store_paths, alone.superblock), (image.store_paths.clone(), image.superblock.clone()));
}

#[test]
fn what_the_ramdisk_is_for() {
    let (build, manifest) = (inspect(&demo().directory), &demo().manifest);
    assert_eq!(build.kernel.release.as_ref(), Some(&manifest.kernel_release));
    assert_eq!(build.ramdisk.kernel_release.as_ref(), Some(&manifest.kernel_release));
    let plan = build.ramdisk.plan.unwrap();
    assert_eq!((&plan.init, &plan.modules), (&manifest.init, &manifest.modules));
    assert_eq!(build.ramdisk.modules.len(), manifest.modules.len());

    let mut text = Vec::new();
    let ramdisk = Ramdisk::open(&demo().directory.join("initrd")).unwrap();
    unpack::cat(&ramdisk, Path::new(plan::PATH), &mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), plan.to_json().unwrap());
}

#[test]
fn unpacked_as_cpio_does() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let ramdisk = Ramdisk::open(&demo().directory).unwrap();
    unpack::unpack(&ramdisk, ours.path(), &mut |entry| panic!("left out: {entry:?}")).unwrap();
    let segments = inspect(&demo().directory).ramdisk.segments;
    let theirs = theirs.path().display();
    shell(&format!(
        "initrd=$PWD/initrd; cd {theirs}; head --bytes={} $initrd | zstd --decompress | cpio --extract --quiet --preserve-modification-time; \
         tail --bytes=+{} $initrd | cpio --extract --quiet --preserve-modification-time; chmod 755 .",
        segments[0].packed,
        segments[1].offset + 1
    ));
    // Type, mode, owner, path, target; and the time, except for directories, whose time cpio does not restore.
    let list = |directory: &str| {
        let find = "find . -printf '%y %m %U:%G %p %l ' '(' -type d -printf '\\n' -o -printf '%T@\\n' ')'";
        shell(&format!("cd {directory}; {find} | sort"))
    };
    let ours = ours.path().to_str().unwrap();
    assert_eq!(list(ours), list(&theirs.to_string()));
    shell(&format!("cd {ours}; find . -type f -exec cmp {{}} {theirs}/{{}} \\;"));
}

#[test]
fn a_ramdisk_that_is_compressed_as_a_whole() {
    // As nixpkgs makes ramdisks.
    let work = TempDir::new().unwrap();
    let initrd = work.path().join("initrd");
    let segments = inspect(&demo().directory).ramdisk.segments;
    // Without the padding before the second one, which is that of a compressed segment.
    shell(&format!(
        "{{ head --bytes={} initrd | zstd --decompress; tail --bytes=+{} initrd; }} | zstd -1 > {}",
        segments[0].packed,
        segments[1].offset + 1,
        initrd.display()
    ));
    let Summary::Ramdisk(whole) = Summary::of(&initrd).unwrap() else { panic!() };
    let (whole_image, image) = (&whole.images[0], &inspect(&demo().directory).ramdisk.images[0]);
    assert_eq!(whole.segments.len(), 1);
    assert_eq!((whole_image.bytes, &whole_image.superblock), (image.bytes, &image.superblock));
    assert!(whole_image.unknown.as_ref().unwrap().contains("take it out with firn cat"));
    let error = format!("{:#}", difference::between(&initrd, &demo().directory).unwrap_err());
    assert!(error.contains("cannot be compared"), "{error}");
    // The advice of the message works.
    let alone = work.path().join("image");
    let mut file = fs::File::create(&alone).unwrap();
    unpack::cat(&Ramdisk::open(&initrd).unwrap(), Path::new(plan::IMAGE), &mut file).unwrap();
    let unchanged = difference::between(&alone, &demo().directory.join("nix-store.squashfs")).unwrap();
    assert_eq!(unchanged.store_bytes, (demo().manifest.store_bytes, demo().manifest.store_bytes));
}

#[test]
fn the_differences_between_two_builds() {
    let with_dummy = TempDir::new().unwrap();
    pack(&demo().toplevel, with_dummy.path(), &["dummy"]).unwrap();
    let difference = difference::between(&demo().directory, with_dummy.path()).unwrap();
    assert_eq!(difference.modules.added, ["dummy"]);
    assert!(difference.modules.removed.is_empty() && difference.kernel_release.is_none());
    assert!(difference.store_paths.added.is_empty() && difference.store_paths.removed.is_empty());
    assert_eq!(difference.store_bytes, (demo().manifest.store_bytes, demo().manifest.store_bytes));
}

/// The faults in a copy of the build that a function damaged: each with the name of the faulty file.
fn faults(damage: impl Fn(&Path)) -> Vec<String> {
    let copy = TempDir::new().unwrap();
    let copy = copy.path().join("copy");
    run(Command::new("cp").arg("-r").args([&demo().directory, &copy]));
    damage(&copy);
    let findings = verify::verify(&copy, Progress::Quiet).unwrap();
    findings.into_iter().filter_map(|finding| Some(format!("{}: {}", finding.what, finding.fault?))).collect()
}

#[test]
fn damage() {
    let has = |faults: &[String], expected: &[&str]| {
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for (fault, words) in faults.iter().zip(expected) {
            assert!(fault.contains(words), "no {words:?} in {fault:?}");
        }
    };
    let image = "the store image that the ramdisk's plan names";
    has(&faults(|_| ()), &[]);

    let large = inspect(&demo().directory).ramdisk.segments[1].clone();
    let flip = |place: u64| {
        move |copy: &Path| {
            let file = OpenOptions::new().read(true).write(true).open(copy.join("initrd")).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            file.write_all_at(&[!byte[0]], place).unwrap();
        }
    };
    has(
        &faults(flip(large.offset + large.packed / 2)),
        &["initrd: its SHA-256 is ", &format!("{image}: its SHA-256 is ")],
    );
    has(
        &faults(flip(4)), // in the header of the zstd frame
        &["initrd: its SHA-256 is ", "unpacked segment at offset 0, the kernel stops unpacking the ramdisk"],
    );
    has(
        &faults(|copy| {
            OpenOptions::new().write(true).open(copy.join("initrd")).unwrap().set_len(large.packed).unwrap();
        }),
        &["initrd: it has ", "the archive ends within the contents of a member"],
    );
    has(
        &faults(|copy| fs::remove_file(copy.join("netboot.ipxe")).unwrap()),
        &["netboot.ipxe: opening it: No such file"],
    );
    has(
        &faults(|copy| fs::write(copy.join("bzImage"), "no kernel").unwrap()),
        &["bzImage: it has 9 bytes and manifest.json says "],
    );
    has(
        &faults(|copy| {
            let path = copy.join("manifest.json");
            let json = fs::read_to_string(&path).unwrap();
            fs::write(&path, json.replace(r#""kernel_release": "6.1"#, r#""kernel_release": "6.9"#)).unwrap();
        }),
        &["the ramdisk is for Linux 6.1", "bzImage is Linux 6.1"],
    );
}

#[test]
fn directories_for_ipxe_and_kexec_can_be_inspected() {
    let work = TempDir::new().unwrap();
    let built = BuildDirectory::open(&demo().directory).unwrap();
    let (split, kexec_tree) = (work.path().join("split"), work.path().join("kexec"));
    ipxe::tree(&built, &split, Form::Split, None, Progress::Quiet).unwrap();
    kexec::tree(&built, &kexec_tree, Progress::Quiet).unwrap();
    for tree in [&split, &kexec_tree] {
        let found = inspect(tree);
        assert_eq!(found.manifest.unwrap().cmdline, demo().manifest.cmdline);
        assert_eq!(found.ramdisk.images[0].store_paths.len(), demo().manifest.store_paths);
        let bytes = demo().manifest.store_bytes;
        let expected = Difference { store_bytes: (bytes, bytes), ..Difference::default() };
        assert_eq!(difference::between(&demo().directory, tree).unwrap(), expected);
        let findings = verify::verify(tree, Progress::Quiet).unwrap();
        assert!(findings.len() > 4 && findings.iter().all(|finding| finding.fault.is_none()), "{findings:?}");
    }
    let alone = split.join("initrd");
    let Summary::Ramdisk(ramdisk) = Summary::of(&alone).unwrap() else { panic!() };
    assert!(ramdisk.images.is_empty() && ramdisk.plan.is_some());
    let error = difference::between(&demo().directory, &alone).unwrap_err().to_string();
    assert!(error.contains("initrd has no store image: the boot loader adds it; compare"), "{error}");

    fs::write(split.join("nix-store.squashfs"), "another").unwrap();
    let findings = verify::verify(&split, Progress::Quiet).unwrap();
    let faults: Vec<_> =
        findings.iter().filter(|finding| finding.fault.is_some()).map(|finding| &finding.what).collect();
    assert_eq!(faults, ["nix-store.squashfs"]);
}

#[test]
fn a_build_boots() {
    let mut machine = Machine::of_build(&demo().directory).unwrap();
    machine.append("probe=");
    let mut timeout = Command::new("timeout");
    let qemu = machine.command(false, false);
    timeout.args(["--kill-after=5", "240"]).arg(qemu.get_program()).args(qemu.get_args());
    let console = run(&mut timeout);
    assert!(console.contains("stage 2: Running the probe"), "{console}");
}

#[test]
fn c_10_a_boot_that_fails_shows_the_rescue_menu() {
    let firn = env::current_exe().unwrap().parent().unwrap().with_file_name("firn");
    let mut child = Command::new("timeout")
        .args(["--kill-after=5", "240"])
        .arg(firn)
        .args(["boot", demo().directory.to_str().unwrap(), "--kvm", "off", "--append", "init=/nowhere"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut console, mut shown) = (BufReader::new(child.stdout.take().unwrap()), Vec::new());
    while !String::from_utf8_lossy(&shown).contains("r  reboot") && console.read_until(b'\n', &mut shown).unwrap() > 0 {
    }
    run(Command::new("kill").arg(child.id().to_string()));
    assert!(!child.wait().unwrap().success());
    let shown = String::from_utf8_lossy(&shown);
    for words in ["firn-init: the boot failed", "/nowhere", "r  reboot"] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
}
