//! What `firn build` is given and cannot use: each gets a sentence that says what to do, and nothing is left behind.
//!
//! The systems are store paths that a real Nix holds, each with something wrong.

mod fake;

use fake::Fake;
use firn::build::options::BuildOptions;
use firn::build::ramdisk::placement::Placement;
use firn::build::ramdisk::segments::SegmentOptions;
use firn::build::store::packing::{Format, Packing};
use firn::build::system::closure::StoreSelection;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::{kexec, uki};
use firn::build::{build, ramdisk, store_image};
use firn::host::progress::Progress;
use rustix::fs::Mode;
use rustix::process::umask;
use std::env;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn without<'a>(fake: &'a Fake, name: &str) -> &'a Fake {
    fs::remove_file(fake.path(name)).unwrap();
    fake
}

fn options(toplevel: &Path, out: &Path) -> BuildOptions {
    let firn_init = env::var_os("FIRN_INIT").expect("start the tests with ./initrd-tests/run");
    BuildOptions { packing: packing("none"), ..BuildOptions::new(toplevel, out, firn_init) }
}

fn packing(compression: &str) -> Packing {
    Packing { compression: Some(compression.parse().unwrap()), ..Packing::default() }
}

/// Builds in vain: checks that the error has these words and that the output directory is as empty as before.
fn refused(options: &BuildOptions, words: &[&str]) {
    let error = format!("{:#}", build(options, Progress::Quiet).expect_err("the build should have failed"));
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
    let left: Vec<_> = fs::read_dir(&options.out).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn what_is_right_is_built() {
    let out = tempfile::tempdir().unwrap();
    let manifest = build(&options(&Fake::new().in_store(), out.path()), Progress::Quiet).unwrap();
    let names: Vec<_> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["nix-store.squashfs", "initrd", "bzImage", "netboot.ipxe"]);
    for file in &manifest.files {
        let sum = Command::new("sha256sum").arg(out.path().join(&file.name)).output().unwrap();
        assert!(String::from_utf8(sum.stdout).unwrap().starts_with(&file.sha256), "{}", file.name);
    }
    assert_eq!(manifest.kernel_release, "6.9");
    let left: Vec<_> = fs::read_dir(out.path()).unwrap().collect();
    assert_eq!(left.len(), 5);
}

#[test]
fn the_same_system_is_the_same_bytes() {
    let fake = Fake::new();
    fake.file("kernel-modules/lib/modules/6.9/modules.builtin", "kernel/loop.ko\nkernel/erofs.ko\n");
    let system = fake.in_store();
    let build = || {
        [Format::Squashfs, Format::Erofs].map(|format| {
            let out = tempfile::tempdir().unwrap();
            let packing = Packing { format, ..packing("none") };
            let options = BuildOptions { packing, ..options(&system, out.path()) };
            let manifest = build(&options, Progress::Quiet).unwrap().to_json().unwrap();
            if format == Format::Erofs {
                let check = Command::new("fsck.erofs").arg(out.path().join("nix-store.erofs")).output().unwrap();
                assert!(check.status.success(), "{check:?}");
            }
            manifest
        })
    };
    let first = build();
    // Times in files have seconds. And nobody else here minds how restrictive new files are.
    std::thread::sleep(Duration::from_millis(1100));
    let before = umask(Mode::from_raw_mode(0o077));
    let second = build();
    umask(before);
    assert_eq!(first, second);
}

/// The names at the root of a store image, as unsquashfs knows them, and the registration in it.
fn image(out: &Path) -> (Vec<String>, String) {
    let unsquashfs = |arguments: &[&str]| {
        let output = Command::new("unsquashfs").args(arguments).current_dir(out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let list = unsquashfs(&["-ls", "-max-depth", "1", "nix-store.squashfs"]);
    let mut names: Vec<_> =
        list.lines().filter_map(|line| line.strip_prefix("squashfs-root/")).map(Into::into).collect();
    names.sort();
    (names, unsquashfs(&["-cat", "nix-store.squashfs", "nix-path-registration"]))
}

#[test]
fn what_is_asked_for_is_in_the_store_image() {
    let (system, fake) = (Fake::new().in_store(), Fake::new());
    fs::write(fake.path("more"), "").unwrap();
    let more = fake.in_store();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let build = |selection: StoreSelection| {
        let out = tempfile::tempdir().unwrap();
        let manifest = build(&BuildOptions { selection, ..options(&system, out.path()) }, Progress::Quiet).unwrap();
        let (names, registration) = image(out.path());
        (manifest.store_paths, names, registration)
    };

    let mut both = vec![name(&system), name(&more), "nix-path-registration".into()];
    both.sort();
    let (count, names, registration) = build(StoreSelection { added: vec![more.clone()], ..StoreSelection::default() });
    assert_eq!((count, names), (2, both));
    assert!(registration.contains(&format!("{}\n", more.display())), "{registration}");

    // The same from what closureInfo writes, with no Nix asked: `nix-store --dump-db` has the same form.
    let info = tempfile::tempdir().unwrap();
    fs::write(info.path().join("registration"), &registration).unwrap();
    fs::write(info.path().join("store-paths"), format!("{}\n{}\n", system.display(), more.display())).unwrap();
    let info = Some(info.path().to_path_buf());
    let selection = StoreSelection { closure_info: info.clone(), ..StoreSelection::default() };
    assert_eq!(build(selection).2, registration);
    let selection = StoreSelection { closure_info: info, excluded: vec![more.clone()], ..StoreSelection::default() };
    let (count, names, registration) = build(selection);
    assert_eq!((count, names.contains(&name(&more)), registration.contains(&name(&more))), (1, false, false));
}

#[test]
fn each_part_can_be_made_alone() {
    // Images that are not to be copied begin on a page, whatever is before them.
    let copied = |system: &Path, out: &Path| BuildOptions { placement: Placement::Copy, ..options(system, out) };
    let (system, whole, parts) = (Fake::new().in_store(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    build(&copied(&system, whole.path()), Progress::Quiet).unwrap();
    let read = |path: PathBuf| fs::read(path).unwrap();

    let files = store_image(&copied(&system, parts.path()), Progress::Quiet).unwrap();
    let image = parts.path().join(&files[0].name);
    assert_eq!(files[0].name, "nix-store.squashfs");
    assert!(read(image.clone()) == read(whole.path().join("nix-store.squashfs")));

    let make = |name: &str, split| {
        let out = parts.path().join(name);
        ramdisk(&copied(&system, &out), std::slice::from_ref(&image), split, Progress::Quiet).unwrap();
        read(out)
    };
    let (ramdisk_of_build, split) = (read(whole.path().join("initrd")), make("split", true));
    assert!(make("ramdisk", false) == ramdisk_of_build);
    assert!(ramdisk_of_build.starts_with(&split) && split.len() % 4 == 0);

    // Segments of somebody else's go before the own one and behind it, the image stays at the end, all on multiples of four.
    let archive = parts.path().join("archive");
    fs::write(&archive, b"0707not looked into").unwrap();
    let with = |file: &Path| {
        let segments = SegmentOptions {
            before: vec![file.into()],
            after: vec![file.into(), file.into()],
            ..SegmentOptions::default()
        };
        let out = parts.path().join("more");
        ramdisk(
            &BuildOptions { segments, ..copied(&system, &out) },
            std::slice::from_ref(&image),
            false,
            Progress::Quiet,
        )
        .map(|_| read(out))
    };
    let padded = b"0707not looked into\0";
    let own = ramdisk_of_build.strip_prefix(&*split).unwrap();
    assert!(with(&archive).unwrap() == [padded, &*split, padded, padded, own].concat());
    let error = format!("{:#}", with(Path::new("/etc/passwd")).unwrap_err());
    assert!(error.contains("adding /etc/passwd to the ramdisk: it is no segment of a ramdisk"), "{error}");

    let error = ramdisk(&copied(&system, parts.path()), &["/etc/passwd".into()], true, Progress::Quiet).unwrap_err();
    assert!(format!("{error:#}").contains("/etc/passwd is neither a squashfs nor an erofs"), "{error:#}");

    let large = parts.path().join("large");
    fs::write(&large, "hsqs").unwrap();
    File::options().write(true).open(&large).unwrap().set_len(1 << 31).unwrap();
    let error = ramdisk(&copied(&system, parts.path()), &[large], false, Progress::Quiet).unwrap_err().to_string();
    assert!(
        error.contains(
            "the kernel unpacks at most 2147483647 bytes of one file: pack the store again with a smaller --max-image"
        ),
        "{error}"
    );
}

#[test]
fn what_cannot_be_in_the_store_image() {
    let (system, out) = (Fake::new().in_store(), tempfile::tempdir().unwrap());
    let with = |selection: StoreSelection| BuildOptions { selection, ..options(&system, out.path()) };
    let excluded = vec![PathBuf::from("/nix/store/no-such-path")];
    refused(&with(StoreSelection { excluded, ..StoreSelection::default() }), &["cannot find /nix/store/no-such-path"]);
    let fake = Fake::new();
    fs::write(fake.path("other"), "").unwrap();
    let excluded = vec![fake.in_store()];
    refused(
        &with(StoreSelection { excluded, ..StoreSelection::default() }),
        &["cannot be excluded: it is not in the closure"],
    );

    let info = tempfile::tempdir().unwrap();
    let closure_info = || StoreSelection { closure_info: Some(info.path().into()), ..StoreSelection::default() };
    refused(&with(closure_info()), &["registration; --closure-info needs the directory", "No such file"]);
    let path = fake.in_store();
    fs::write(info.path().join("store-paths"), "").unwrap();
    let bad_hash = format!("the hash \"sha256:{}\", which is not a SHA-256", "e".repeat(52));
    for (registration, words) in [
        (format!("{}\nsha256:{}\n1\n\n0\n", system.display(), "e".repeat(52)), ["make it again", &bad_hash]),
        (format!("{}\nsha256:", path.display()), ["reading ", "is cut short"]),
        (String::new(), ["make it again", "it is for another system"]),
    ] {
        fs::write(info.path().join("registration"), registration).unwrap();
        refused(&with(closure_info()), &words);
    }
}

#[test]
fn the_toplevel() {
    let out = tempfile::tempdir().unwrap();
    let system = Fake::new().in_store();
    refused(
        &options(Path::new("/nix/store/no-such-system"), out.path()),
        &["cannot find", "no-such-system", "No such file"],
    );
    refused(&options(Path::new("/etc"), out.path()), &["/etc is not in the Nix store"]);
    refused(&options(Path::new("/nix/store"), out.path()), &["the whole store"]);
    refused(
        &options(&system.join("init"), out.path()),
        &["lies inside a store path; give the toplevel", system.to_str().unwrap()],
    );

    let fake = Fake::new();
    let unknown = PathBuf::from(format!("/nix/store/{}-not-registered", "0".repeat(32)));
    assert!(Command::new("cp").arg("-r").arg(fake.path("")).arg(&unknown).status().unwrap().success());
    refused(&options(&unknown, out.path()), &["Nix does not know the closure", "is not valid", "nix copy) first"]);
    fs::remove_dir_all(unknown).unwrap();
}

#[test]
fn what_is_in_the_toplevel() {
    let out = tempfile::tempdir().unwrap();
    let built = |fake: &Fake, words: &[&str]| refused(&options(&fake.in_store(), out.path()), words);
    built(without(&Fake::new(), "init"), &["has no init: it is no NixOS system"]);
    built(without(&Fake::new(), "bzImage"), &["neither a boot.json", "kernel"]);
    built(Fake::new().file("boot.json", "{"), &["not a bootspec of version 1"]);
    let release = "kernel-modules/lib/modules/6.9";
    built(
        Fake::new().file(&format!("{release}/modules.dep"), "overlay.ko:\n"),
        &["the kernel 6.9 has no squashfs, neither as a module nor built in"],
    );
    built(without(&Fake::new(), &format!("{release}/squashfs.ko")), &["reading the module", "squashfs.ko"]);
    built(without(&Fake::new(), &format!("{release}/modules.builtin")), &["modules.builtin", "depmod"]);

    let spec = |kernel: &str| {
        format!(
            r#"{{"org.nixos.bootspec.v1": {{"init": "/x/init", "kernel": "{kernel}", "kernelParams": [], "label": "x",
                "system": "{}-linux", "toplevel": "/x"}}}}"#,
            env::consts::ARCH
        )
    };
    built(Fake::new().file("boot.json", &spec("/x/bzImage")), &["has no kernel: reading /x/bzImage"]);
    built(Fake::new().file("boot.json", &spec("/etc/passwd")), &["names the init /x/init, which is not its own"]);
}

#[test]
fn how_a_system_wants_to_be_started() {
    let out = tempfile::tempdir().unwrap();
    let built = |fake: &Fake, words: &[&str]| refused(&options(&fake.in_store(), out.path()), words);
    let program = Fake::new();
    program.file("init", "\x7fELF");
    built(&program, &["no init that is a script, no prepare-root", "no extension org.nixos.nixos-init.v1"]);

    let spec = |extension: &str| {
        format!(
            r#"{{"org.nixos.bootspec.v1": {{"init": "/x/init", "kernel": "/etc/passwd", "kernelParams": [], "label": "x",
                "system": "{}-linux", "toplevel": "/x"}}, "org.nixos.nixos-init.v1": {extension}}}"#,
            env::consts::ARCH
        )
    };
    built(
        program.file("boot.json", &spec(r#"{"etc_metadata_image": 1}"#)),
        &["boot.json", "etc_metadata_image is not a string"],
    );
    let overlay = spec(r#"{"etc_metadata_image": "/nix/store/x", "etc_basedir": "/nix/store/y"}"#);
    fs::rename(program.path("kernel-modules/lib/modules/6.9"), program.path("kernel-modules/lib/modules/6.5")).unwrap();
    let too_old =
        ["an overlay for /etc, which needs Linux 6.6 or newer, and its kernel is 6.5", "overlay.enable = false"];
    built(program.file("boot.json", &overlay), &too_old);
    built(program.file("prepare-root", ""), &too_old);
}

#[test]
fn firn_init() {
    let out = tempfile::tempdir().unwrap();
    let system = Fake::new().in_store();
    let with = |firn_init: &str| BuildOptions { firn_init: firn_init.into(), ..options(&system, out.path()) };
    refused(
        &with("/nonexistent/firn-init"),
        &["reading firn-init at /nonexistent/firn-init", "cargo build", "No such file"],
    );
    refused(&with("/bin/bash"), &["/bin/bash cannot be PID 1", "linked dynamically", "crt-static"]);
    refused(&with("/etc/passwd"), &["/etc/passwd cannot be PID 1", "not a 64-bit ELF"]);
}

#[test]
fn mksquashfs_that_fails() {
    let out = tempfile::tempdir().unwrap();
    let system = Fake::new().in_store();
    let bad = BuildOptions { packing: packing("zstd -Xcompression-level 99"), ..options(&system, out.path()) };
    refused(&bad, &["mksquashfs failed", "-Xcompression-level invalid, it should be 1 <= n <= 22"]);
    let bad = BuildOptions {
        packing: Packing { block_size: Some(12345), ..packing("none") },
        ..options(&system, out.path())
    };
    refused(&bad, &["mksquashfs failed", "block size not power of two"]);
    let missing = BuildOptions { modules: vec!["squash".into()], ..options(&system, out.path()) };
    refused(&missing, &["the kernel 6.9 has no module squash", "did you mean squashfs?"]);
    let erofs = Packing { format: Format::Erofs, ..packing("none") };
    let words = ["the kernel 6.9 has no erofs, neither as a module nor built in"];
    refused(&BuildOptions { packing: erofs, ..options(&system, out.path()) }, &words);
}

#[test]
fn a_build_that_is_interrupted() {
    let fake = Fake::new();
    // Nothing that compresses: a minute of work for xz.
    let noise = (0_u64..8 << 20).flat_map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17).to_le_bytes());
    fs::write(fake.path("large"), noise.collect::<Vec<_>>()).unwrap();
    let system = fake.in_store();
    // Cargo builds it for tests of its own package, beside the directory of this one.
    let firn = env::current_exe().unwrap().parent().unwrap().with_file_name("firn");
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("initrd"), "of an earlier build").unwrap();
    let files = || fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for signal in ["-INT", "-TERM"] {
        let mut build = Command::new(&firn);
        build.arg("build").arg(&system).arg("--out").arg(out.path()).args(["--compression", "xz", "--firn-init"]);
        build.arg(env::var_os("FIRN_INIT").unwrap()).stderr(Stdio::piped());
        let child = build.spawn().unwrap();
        let packing = || files().iter().any(|path| path.join("nix-store.squashfs").exists());
        while !packing() {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.ends_with("interrupted\n"), "{said}");
        assert_eq!(files(), [out.path().join("initrd")]);
    }
    assert_eq!(fs::read_to_string(out.path().join("initrd")).unwrap(), "of an earlier build");
}

#[test]
fn an_output_that_cannot_be_written() {
    let system = Fake::new().in_store();
    let parent = tempfile::tempdir().unwrap();
    File::create(parent.path().join("file")).unwrap();
    let error = format!("{:#}", build(&options(&system, &parent.path().join("file")), Progress::Quiet).unwrap_err());
    assert!(error.contains("making the output directory"), "{error}");
    // As root: whom a mode does not keep from writing.
    refused(&options(&system, Path::new("/proc/firn")), &["making the output directory /proc/firn"]);
    let read_only = parent.path().join("read-only");
    fs::create_dir(&read_only).unwrap();
    assert!(
        Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "tmpfs"]).arg(&read_only).status().unwrap().success()
    );
    refused(&options(&system, &read_only), &["read-only; give another directory with --out", "Read-only file system"]);
    assert!(Command::new("umount").arg(&read_only).status().unwrap().success());

    // 8 MiB hold the image and not the ramdisk, 1 MiB not even the image.
    let fake = Fake::new();
    fs::write(fake.path("large"), vec![0x5a; 5 << 20]).unwrap();
    let large = fake.in_store();
    for (size, words) in [("1m", ["mksquashfs failed", "No space left"]), ("8m", ["8m/initrd", "No space left"])] {
        let full = parent.path().join(size);
        fs::create_dir(&full).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&full).status();
        assert!(mount.unwrap().success());
        refused(&options(&large, &full), &words);
        assert!(Command::new("umount").arg(&full).status().unwrap().success());
    }
}

#[test]
fn an_output_on_the_name_of_an_input() {
    let (system, out) = (Fake::new().in_store(), tempfile::tempdir().unwrap());
    build(&options(&system, out.path()), Progress::Quiet).unwrap();
    let (initrd, image) = (out.path().join("initrd"), out.path().join("nix-store.squashfs"));
    let of_build = BuildDirectory::open(out.path()).unwrap();
    let uki = uki::UkiOptions::default();
    let segments = || SegmentOptions { before: vec![initrd.clone()], ..SegmentOptions::default() };
    for (result, expected) in [
        (
            build(&options(&system, &system.join("boot")), Progress::Quiet).err(),
            "lies inside of the system to build; give another",
        ),
        (
            build(&BuildOptions { segments: segments(), ..options(&system, out.path()) }, Progress::Quiet).err(),
            "initrd would overwrite",
        ),
        (
            ramdisk(&options(&system, &image), std::slice::from_ref(&image), false, Progress::Quiet).err(),
            "nix-store.squashfs would overwrite",
        ),
        (kexec::tarball(&of_build, &initrd, "", Progress::Quiet).err(), "initrd, which is an input; give another name"),
        (
            uki::image(&of_build, &out.path().join("manifest.json"), &uki, Progress::Quiet).err(),
            "manifest.json would overwrite",
        ),
        (kexec::tree(&of_build, out.path(), Progress::Quiet).err(), "give another directory with --out"),
    ] {
        let error = format!("{:#}", result.expect(expected));
        assert!(error.contains(expected), "no {expected:?} in: {error}");
    }
    of_build.ramdisk().unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 5, "nothing is left behind");
}

#[test]
fn store_paths_that_are_not_what_nix_says() {
    let (system, out) = (Fake::new().in_store(), tempfile::tempdir().unwrap());
    // Registered, and deleted behind the back of Nix.
    let gone = format!("/nix/store/{}-gone", "1".repeat(32));
    let fake = Fake::new();
    fs::write(fake.path("more"), "").unwrap();
    let more = fake.in_store();
    let hash = "0".repeat(52);
    let registration = format!("{gone}\nsha256:{hash}\n1\n\n0\n{}\nsha256:{hash}\n1\n\n1\n{gone}\n", more.display());
    let mut nix_store = Command::new("nix-store").arg("--load-db").stdin(Stdio::piped()).spawn().unwrap();
    nix_store.stdin.take().unwrap().write_all(registration.as_bytes()).unwrap();
    assert!(nix_store.wait().unwrap().success());
    let selection = StoreSelection { added: vec![more.clone()], ..StoreSelection::default() };
    refused(
        &BuildOptions { selection, ..options(&system, out.path()) },
        &[&format!("{gone} is not in the store of this machine"), "nix-store --verify --check-contents --repair"],
    );
    assert!(Command::new("nix-store").arg("--delete").arg(&more).arg(&gone).output().unwrap().status.success());

    // Whoever is not root, and packs what only root may read.
    let fake = Fake::new();
    fs::write(fake.path("secret"), "").unwrap();
    let secret = fake.in_store();
    fs::set_permissions(secret.join("secret"), Permissions::from_mode(0o000)).unwrap();
    let info = tempfile::tempdir().unwrap();
    let dump = Command::new("nix-store").arg("--dump-db").arg(&secret).output().unwrap().stdout;
    fs::write(info.path().join("registration"), dump).unwrap();
    fs::write(info.path().join("store-paths"), format!("{}\n", secret.display())).unwrap();
    let place = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    open(info.path());
    open(place.path());
    let firn = place.path().join("firn");
    fs::copy(env::current_exe().unwrap().parent().unwrap().with_file_name("firn"), &firn).unwrap();
    for (format, words) in [("squashfs", "Failed to read file"), ("erofs", "secret for mkfs.erofs: Permission denied")]
    {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&firn).arg("image").arg(&secret);
        nobody.args(["--quiet", "--format", format, "--out"]).arg(place.path().join("image"));
        let output = nobody.arg("--closure-info").arg(info.path()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(words), "{error}");
        assert!(error.contains("firn: writing ") && error.lines().count() == 1, "{error}");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing is left behind");
    }
    fs::set_permissions(secret.join("secret"), Permissions::from_mode(0o444)).unwrap();
}
