//! The outputs of the NixOS module (`nix/module.nix`): a real Nix builds each from the demo system, and each boots.

use crate::fixture::{Build, boot, run, sorted_lines, with_appended};
use crate::ways::{Server, ovmf, runs, store};
use crate::{LINUX_6_1, assert_succeeded, command};
use anyhow::{Context, Result};
use firn::build::ways::build_directory::BuildDirectory;
use firn::contract::place::{INITRD, ZERO_COPY};
use initrd_tests::Report;
use qemu::{Loader, Machine};
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

const KERNEL: &str = "6.12";

/// The outputs of one configuration (`nix/default.nix`).
struct Outputs {
    way: &'static str,
    built: OnceLock<Result<(PathBuf, Build)>>,
}

static FAT: Outputs = Outputs { way: "fat", built: OnceLock::new() };
static SPLIT: Outputs = Outputs { way: "split", built: OnceLock::new() };

impl Outputs {
    fn built(&self) -> &(PathBuf, Build) {
        let built = self.built.get_or_init(|| build(self.way));
        built
            .as_ref()
            .unwrap_or_else(|error| panic!("building the outputs of the {} configuration: {error:#}", self.way))
    }

    /// The path of an output.
    fn path(&self, name: &str) -> PathBuf {
        let path = self.built().0.join(name);
        path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The output of `firn build`, from which all the others are made.
    fn build(&self) -> &Build {
        &self.built().1
    }

    /// A machine whose boot loader loads the system.
    fn machine(&self, loader: Loader) -> Machine {
        Machine { loader, time_limit: Duration::from_mins(4), ..Machine::new(self.path("toplevel").join("kernel")) }
    }
}

fn build(way: &str) -> Result<(PathBuf, Build)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Cargo builds it for the tests of its package, next to the directory of this test.
    let firn = env::current_exe()?.parent().context("a test without a directory")?.with_file_name("firn");
    let firn_init = env::var_os("FIRN_INIT").context("start the tests with ./initrd-tests/run")?;
    let kexec = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kexec-for-{way}"));
    run(Command::new(here.join("kexec-tools")).arg(&kexec))?;
    let output = run(Command::new(here.join("system/build"))
        .args(["--kernel", KERNEL, "--probe", env!("CARGO_BIN_EXE_firn-probe"), "--expression"])
        .arg(here.join("nix/default.nix"))
        .args(["--argstr", "way", way, "--argstr", "firn"])
        .arg(firn)
        .args(["--argstr", "firnInit"])
        .arg(firn_init)
        .args(["--argstr", "kexec"])
        .arg(kexec))?;
    let outputs = PathBuf::from(output.lines().last().context("system/build printed no store path")?);
    let directory = outputs.join("netbootBuild");
    let manifest = BuildDirectory::open(&directory)?.manifest;
    let closure = sorted_lines(&run(Command::new("nix-store").args(["--query", "--requisites", &manifest.toplevel]))?);
    Ok((outputs, Build { directory, manifest, closure }))
}

/// Makes a directory with a link to each path, named as its last part.
fn farm(directory: &Path, paths: &[PathBuf]) {
    fs::create_dir(directory).unwrap();
    for path in paths {
        symlink(path, directory.join(path.file_name().unwrap())).unwrap();
    }
}

fn by_ipxe(outputs: &Outputs, directory: &Path, work: &Path) -> Report {
    let server = Server::new(directory);
    let tftp = work.join("tftp");
    fs::create_dir(&tftp).unwrap();
    let script = format!("#!ipxe\nset cmdline way=ipxe\nchain http://10.0.2.2:{}/netboot.ipxe\n", server.port);
    fs::write(tftp.join("menu"), script).unwrap();
    let loader = Loader::Ipxe { directory: tftp, script: "menu".into(), firmware: None };
    let report = boot(&outputs.machine(loader)).unwrap();
    assert!(report.cmdline.ends_with(" way=ipxe"), "{}", report.cmdline);
    report
}

#[test]
fn the_ramdisk_boots_with_the_words_of_the_options() {
    let mut machine = Machine::of_build(&FAT.build().directory).unwrap();
    machine.initrd = Some(FAT.path("netbootRamdisk").join("initrd"));
    machine.append("probe=verify");
    let report = boot(&machine).unwrap();
    runs(&report, FAT.build());
    assert_succeeded(command(&report, &["nix-store", "--verify", "--check-contents"]));
    for word in ["firn.register=required", "firn.rw-store.size=70%", "rootfstype=ramfs"] {
        assert_eq!(report.cmdline.split(' ').filter(|other| *other == word).count(), 1, "{word} in {}", report.cmdline);
    }
    let mount = report.mounts.iter().find(|mount| mount.target == "/nix/.rw-store").unwrap();
    let size = mount.super_options.split(',').find_map(|option| option.strip_prefix("size=")?.strip_suffix('k'));
    let percent = size.unwrap().parse::<u64>().unwrap() * 100 / report.meminfo["MemTotal"];
    assert!((69..=70).contains(&percent), "{mount:?}");
    // A module from an option, packed for machines with a device for it.
    let listed = run(Command::new("cpio").args(["--list", "--quiet"]).stdin(unpacked(&FAT))).unwrap();
    assert!(listed.lines().any(|file| file.ends_with("/virtio_net.ko")), "{listed}");
}

/// firn's own segment of the ramdisk.
fn unpacked(outputs: &Outputs) -> std::process::Stdio {
    let script = "head --bytes $0 < $1 | zstd --decompress --stdout --quiet 2> /dev/null; true";
    let segment = outputs.build().manifest.before_images.to_string();
    let mut command = Command::new("sh");
    command.args(["-c", script, &segment]).arg(outputs.path("netbootRamdisk").join("initrd"));
    command.stdout(std::process::Stdio::piped()).spawn().unwrap().stdout.unwrap().into()
}

/// A directory with the kernel, the script and these files of the ramdisk's output.
fn served(work: &Path, ramdisk: &[&str]) -> PathBuf {
    let served = work.join("served");
    let kernel = FAT.path("toplevel").join("kernel").canonicalize().unwrap();
    let mut files = vec![kernel, FAT.path("netbootIpxeScript").join("netboot.ipxe")];
    files.extend(ramdisk.iter().map(|file| FAT.path("netbootRamdisk").join(file)));
    farm(&served, &files);
    served
}

#[test]
fn ipxe_boots_what_nixpkgs_users_serve() {
    // As the users do it: the three outputs in one directory.
    let work = tempfile::tempdir().unwrap();
    let ramdisk = FAT.path("netbootRamdisk");
    let files: Vec<_> = fs::read_dir(ramdisk).unwrap().map(|file| file.unwrap().file_name()).collect();
    let files: Vec<_> = files.iter().map(|name| name.to_str().unwrap()).collect();
    assert!(files.contains(&ZERO_COPY), "{files:?}");
    let report = by_ipxe(&FAT, &served(work.path(), &files), work.path());
    runs(&report, FAT.build());
}

/// As the users of netboot.nix know it: one file of the ramdisk.
#[test]
fn d_1_a_server_without_the_file_for_zero_copy() {
    let work = tempfile::tempdir().unwrap();
    let report = by_ipxe(&FAT, &served(work.path(), &["initrd"]), work.path());
    assert_eq!(report.boot["images"][0]["source"], INITRD);
    let warnings = report.boot["warnings"].to_string();
    assert!(warnings.contains("was in memory twice"), "{warnings}");
}

#[test]
fn ipxe_boots_the_split_form_of_several_images() {
    let work = tempfile::tempdir().unwrap();
    assert_eq!(fs::read_dir(SPLIT.path("squashfsStore")).unwrap().count(), 2);
    let report = by_ipxe(&SPLIT, &SPLIT.path("netbootIpxeTree"), work.path());
    runs(&report, SPLIT.build());
    // The first is a mount only because the module's fstab needs one there for systemd.
    let stores = report.mounts.iter().filter(|mount| mount.target.starts_with("/nix/.ro-store"));
    assert_eq!(stores.map(|mount| mount.kind.as_str()).collect::<Vec<_>>(), ["tmpfs", "erofs", "erofs"]);
}

/// A machine with another system and a copy of the directory in `/kexec`, with the programs that the demo system lacks.
fn with_kexec(work: &Path, tree: &Path, script: &str) -> Machine {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kexec-for-fat");
    let script = format!(
        "mkdir -p firn/root && cp -r '{}' firn/root/kexec && chmod -R u+w firn/root && cp -r '{}'/* firn/root/kexec && {script}",
        tree.display(),
        tools.display()
    );
    with_appended(&LINUX_6_1, work, &script)
}

#[test]
fn kexec_boots_the_tarball_which_is_the_tree() {
    let work = tempfile::tempdir().unwrap();
    let (tarball, tree) = (FAT.path("kexecTarball"), FAT.path("kexecTree"));
    let name = "nixos-image-26.05-x86_64-linux";
    let unpack = "zstd --decompress --stdout \"$0\" | tar --extract && diff --recursive \"$1\" \"$2\"";
    run(Command::new("sh")
        .args(["-ec", unpack])
        .arg(tarball.join(format!("tarball/{name}.tar.zst")))
        .args([Path::new(name), &tree])
        .current_dir(work.path()))
    .unwrap();
    let products = fs::read_to_string(tarball.join("nix-support/hydra-build-products")).unwrap();
    assert!(products.starts_with("file system-tarball ") && products.ends_with(".tar.zst\n"), "{products}");
    assert_eq!(fs::read(FAT.path("kexecScript")).unwrap(), fs::read(tree.join("kexec-boot")).unwrap());

    let mut machine = with_kexec(work.path(), &work.path().join(name), "true");
    machine.append("probe=kexec");
    let report = boot(&machine).unwrap();
    runs(&report, FAT.build());
    assert!(report.cmdline.ends_with(" way=\"k e # x\\ec\""), "{}", report.cmdline);
}

#[test]
fn kexec_boots_what_nixos_anywhere_runs_and_carries_files_over() {
    let work = tempfile::tempdir().unwrap();
    let tarball = FAT.path("kexecInstallerTarball").join("nixos-kexec-installer-x86_64-linux.tar.gz");
    run(Command::new("tar").arg("--extract").arg("--file").arg(tarball).current_dir(work.path())).unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFirn root@host";
    let host = format!(
        "mkdir -p -m 710 firn/root/etc/firn-test && (umask 077 && echo private > firn/root/etc/firn-test/key) && \
         mkdir -p -m 700 firn/root/root/.ssh && \
         printf '%s\\n' '# nobody' 'command=\"echo no\" {key}' '{key}' > firn/root/root/.ssh/authorized_keys && \
         cp /bin/busybox firn/root/kexec/bin/cpio"
    );
    let mut machine = with_kexec(work.path(), &work.path().join("kexec"), &host);
    machine.append("probe=kexec-run");
    let outcome = machine.run().unwrap();
    let report = crate::fixture::report(&outcome).unwrap();
    runs(&report, FAT.build());
    let [modes, contents] = &*report.commands else { panic!("{:#?}", report.commands) };
    assert_succeeded(modes);
    assert_eq!(
        modes.stdout,
        "710 /etc/firn-test\n600 /etc/firn-test/key\n700 /root/.ssh\n600 /root/.ssh/authorized_keys\n"
    );
    assert_eq!(contents.stdout, format!("private\n{key}\n"));
}

#[test]
fn uefi_boots_the_unified_kernel_image() {
    let disk = tempfile::tempdir().unwrap();
    let directory = disk.path().join("EFI/BOOT");
    fs::create_dir_all(&directory).unwrap();
    fs::copy(FAT.path("netbootUki").join("nixos.efi"), directory.join("BOOTX64.EFI")).unwrap();
    let loader = Loader::Uefi { firmware: ovmf(), directory: disk.path().into(), network: false };
    let report = boot(&FAT.machine(loader)).unwrap();
    runs(&report, FAT.build());
    assert!(report.cmdline.ends_with(" way=uki"), "{}", report.cmdline);
    assert_eq!(store(&report), "squashfs");
}

#[test]
fn nothing_leads_back_to_what_it_is_made_of() {
    let requisites = |path: &Path| run(Command::new("nix-store").args(["--query", "--requisites"]).arg(path)).unwrap();
    let deriver = run(Command::new("nix-store").args(["--query", "--deriver"]).arg(FAT.path("toplevel"))).unwrap();
    let of_toplevel = requisites(Path::new(deriver.trim()));
    for name in ["-squashfs.img", "-netboot", "-firn-init", "-closure-info"] {
        assert!(!of_toplevel.contains(name), "{name} in {of_toplevel}");
    }
    // A tree that is copied to another machine has one copy of the store image.
    let tree = requisites(&FAT.path("kexecTree"));
    assert!(!tree.contains("-netboot-ramdisk") && !tree.contains("-squashfs.img"), "{tree}");
}
