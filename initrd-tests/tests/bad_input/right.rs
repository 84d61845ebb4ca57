//! Input without a fault is built, each time into the same bytes.

use crate::attempt::{options, packing};
use crate::fake::Fake;
use firn::build::options::BuildOptions;
use firn::build::ramdisk::placement::Placement;
use firn::build::ramdisk::segments::SegmentOptions;
use firn::build::store::packing::{Format, Packing};
use firn::build::system::closure::StoreSelection;
use firn::build::{build, ramdisk, store_image};
use firn::formats::cpio::{Node, Tree};
use firn::host::progress::Progress;
use firn::inspect::summary::Summary;
use rustix::fs::Mode;
use rustix::process::umask;
use std::fs;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn what_is_right_is_built() {
    let out = tempfile::tempdir().unwrap();
    let manifest = build(&options(&Fake::new().in_store(), out.path()), Progress::Quiet).unwrap();
    let names: Vec<_> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["nix-store.squashfs", "initrd", "zero-copy.cpio", "bzImage", "netboot.ipxe"]);
    for file in &manifest.files {
        let sum = Command::new("sha256sum").arg(out.path().join(&file.name)).output().unwrap();
        assert!(String::from_utf8(sum.stdout).unwrap().starts_with(&file.sha256), "{}", file.name);
    }
    assert_eq!(manifest.kernel_release, "6.9");
    let left: Vec<_> = fs::read_dir(out.path()).unwrap().collect();
    assert_eq!(left.len(), 6);
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
    // File times count seconds. The umask is that of the whole process; the other tests here work with any.
    std::thread::sleep(Duration::from_millis(1100));
    let before = umask(Mode::from_raw_mode(0o077));
    let second = build();
    umask(before);
    assert_eq!(first, second);
}

/// The names at the root of a store image, as listed by unsquashfs, and the registration in it.
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

    // The same from files of closureInfo, without Nix: `nix-store --dump-db` writes the same format.
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

/// The number of packed store paths, and the paths that Nix keeps.
fn packed_and_kept(system: &Path, selection: StoreSelection) -> (usize, Vec<String>) {
    let out = tempfile::tempdir().unwrap();
    let packed =
        build(&BuildOptions { selection, ..options(system, out.path()) }, Progress::Quiet).unwrap().store_paths;
    let Summary::Build(found) = Summary::of(out.path()).unwrap() else { panic!("no build") };
    (packed, found.ramdisk.plan.unwrap().roots)
}

fn sorted(paths: &[&Path]) -> Vec<String> {
    let mut paths: Vec<_> = paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    paths.sort();
    paths
}

#[test]
fn b_5_the_plan_names_what_was_packed_by_name() {
    let (system, fake) = (&*Fake::new().in_store(), Fake::new());
    fs::write(fake.path("more"), "").unwrap();
    let more = &*fake.in_store();
    // A store path that is a symlink, and a symlink to this path outside of the store.
    symlink(more, fake.path("link")).unwrap();
    let link = Command::new("nix-store").arg("--add").arg(fake.path("link")).output().unwrap();
    let link = String::from_utf8(link.stdout).unwrap();
    let link = Path::new(link.trim());
    assert!(link.is_symlink());
    let outside = &*fake.path("result");
    symlink(link, outside).unwrap();

    let added = |added: &[&Path]| StoreSelection {
        added: added.iter().map(|path| path.to_path_buf()).collect(),
        ..StoreSelection::default()
    };
    assert_eq!(packed_and_kept(system, StoreSelection::default()), (1, sorted(&[system])));
    for given in [link, outside] {
        assert_eq!(packed_and_kept(system, added(&[given])), (2, sorted(&[system, link])));
    }
    assert_eq!(packed_and_kept(system, added(&[more, outside, system])), (3, sorted(&[system, more, link])));
    let without = StoreSelection { excluded: vec![outside.into()], ..added(&[link, more]) };
    assert_eq!(packed_and_kept(system, without), (2, sorted(&[system, more])));
}

#[test]
fn b_5_of_a_closure_info_nix_keeps_the_paths_that_no_other_path_refers_to() {
    let (system, fake) = (&*Fake::new().in_store(), Fake::new());
    fs::write(fake.path("more"), "").unwrap();
    let more = &*fake.in_store();
    let dump = Command::new("nix-store").arg("--dump-db").args([system, more]).output().unwrap();
    let registration = String::from_utf8(dump.stdout).unwrap();
    let info = tempfile::tempdir().unwrap();
    let keeps = |registration: &str, added: &[&Path]| {
        fs::write(info.path().join("registration"), registration).unwrap();
        fs::write(info.path().join("store-paths"), format!("{}\n{}\n", system.display(), more.display())).unwrap();
        let added = added.iter().map(|path| path.to_path_buf()).collect();
        let closure_info = Some(info.path().to_path_buf());
        packed_and_kept(system, StoreSelection { closure_info, added, ..StoreSelection::default() }).1
    };
    assert_eq!(keeps(&registration, &[]), sorted(&[system, more]));
    // The system refers to the other path: only its name makes that a root.
    let (own, rest) = registration.split_once(&format!("{}\n", system.display())).unwrap();
    let rest = rest.replacen("\n0\n", &format!("\n1\n{}\n", more.display()), 1);
    let registration = format!("{own}{}\n{rest}", system.display());
    assert_eq!(keeps(&registration, &[]), sorted(&[system]));
    assert_eq!(keeps(&registration, &[more]), sorted(&[system, more]));
}

#[test]
fn each_part_can_be_made_alone() {
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

    // Additional segments go before and after firn's own and begin on multiples of four; the image stays at the end, on a page.
    let archive = parts.path().join("archive");
    let mut padded = Vec::new();
    let mut tree = Tree::default();
    tree.add("/of-host", Node::File { mode: 0o644, contents: b"a file".to_vec() });
    tree.write(&mut padded).unwrap();
    // The trailer ends with three zeros, which the builder adds.
    fs::write(&archive, padded.strip_suffix(&[0; 3]).unwrap()).unwrap();
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
    let (more, images) = (with(&archive).unwrap(), ramdisk_of_build.strip_prefix(&*split).unwrap());
    let rest = more.strip_suffix(images).unwrap();
    assert_eq!(rest.len() % 4096, 0);
    let own = split.strip_suffix(&*vec![0; split.iter().rev().take_while(|byte| **byte == 0).count()]).unwrap();
    let rest = rest.strip_prefix(&*[&padded, own].concat()).unwrap();
    let after = rest.iter().position(|byte| *byte != 0).unwrap();
    assert_eq!((padded.len() + own.len() + after) % 4, 0);
    let zeros = rest[after..].strip_prefix(&*[&*padded, &padded].concat()).unwrap();
    assert!(after < 4 && zeros.iter().all(|byte| *byte == 0));
    let error = format!("{:#}", with(Path::new("/etc/passwd")).unwrap_err());
    assert!(error.contains("adding /etc/passwd to the ramdisk: at offset 0, the kernel stops"), "{error}");

    let error = ramdisk(&copied(&system, parts.path()), &["/etc/passwd".into()], true, Progress::Quiet).unwrap_err();
    assert!(format!("{error:#}").contains("/etc/passwd is neither a squashfs nor an erofs"), "{error:#}");

    let large = parts.path().join("large");
    fs::copy(&image, &large).unwrap();
    File::options().write(true).open(&large).unwrap().set_len(1 << 31).unwrap();
    let error = ramdisk(&copied(&system, parts.path()), &[large], false, Progress::Quiet).unwrap_err().to_string();
    assert!(
        error.contains(
            "the kernel unpacks at most 2147483647 bytes of one file: pack the store again with a smaller --max-image"
        ),
        "{error}"
    );
}
