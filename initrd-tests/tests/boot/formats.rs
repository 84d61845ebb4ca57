//! Store images in other formats than that of most tests.

use super::fixture::{Build, Fixture, boot, pack_with, run};
use super::{LINUX_6_1, LINUX_6_12, LINUX_7};
use firn::build::options::BuildOptions;
use firn::build::ramdisk::compressor::Compressor;
use firn::build::ramdisk::placement::Placement;
use firn::build::ramdisk::segments::SegmentOptions;
use firn::build::store::layers::LayerCache;
use firn::build::store::packing::{Format, Packing, Profile};
use firn::build::system::closure::StoreSelection;
use firn::contract::plan::MAX_IMAGES;
use firn::inspect::difference;
use firn::inspect::summary;
use initrd_tests::Mount;
use qemu::Machine;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The system of a fixture with its store in an erofs.
fn erofs(fixture: &Fixture, placement: Placement) -> Build {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("boot-erofs-{}-{placement:?}", fixture.kernel));
    let packing = Packing { format: Format::Erofs, profile: Profile::Dev, ..Packing::default() };
    let toplevel = &fixture.build().manifest.toplevel;
    pack_with(toplevel, directory, |options| BuildOptions { packing, placement, ..options }).unwrap()
}

/// The same with Linux 6.12, packed once, zero-copy.
pub fn erofs_6_12() -> &'static Build {
    static BUILD: OnceLock<Build> = OnceLock::new();
    BUILD.get_or_init(|| erofs(&LINUX_6_12, Placement::Auto))
}

/// Boots the system. Debian's kernels have `EROFS_FS_BACKED_BY_FILE` since 6.12.
fn is_mounted_from(source: &str, build: &Build) {
    let work = tempfile::tempdir().unwrap();
    let mut machine = build.machine(work.path()).unwrap();
    machine.append("probe=verify");
    let report = boot(&machine).unwrap();
    let lower = report.mounts.iter().find(|mount| mount.target == "/nix/.ro-store").unwrap();
    assert_eq!((lower.kind.as_str(), lower.source.as_str()), ("erofs", source));
    let [verify] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert!(verify.status == Some(0) && !verify.stderr.contains("/nix/store/"), "{verify:#?}");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

#[test]
fn an_erofs_by_a_loop_device() {
    is_mounted_from("/dev/loop0", &erofs(&LINUX_6_1, Placement::Auto));
}

#[test]
fn an_erofs_from_its_file() {
    is_mounted_from("/nix-store.erofs", &erofs(&LINUX_6_12, Placement::Copy));
    is_mounted_from("/nix-store.erofs", &erofs(&LINUX_7, Placement::Copy));
}

#[test]
fn an_erofs_that_stays_where_the_boot_loader_put_it() {
    is_mounted_from("/dev/loop0", erofs_6_12());
}

/// Boots the system of a fixture with its store in several images.
fn layers(fixture: &Fixture) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("boot-layers-{}", fixture.kernel));
    let toplevel = &fixture.build().manifest.toplevel;
    let build = pack_with(toplevel, directory, |options| {
        let packing = Packing { max_image: 24 << 20, ..options.packing.clone() };
        BuildOptions { packing, verify: true, ..options }
    })
    .unwrap();
    let images = &build.manifest.images;
    assert!((3..=5).contains(&images.len()), "{images:?}");
    assert!(images[1].path.ends_with("/nix-store-2.squashfs"), "{images:?}");
    for image in images {
        let bytes = fs::metadata(build.directory.join(&image.file)).unwrap().len();
        assert!((1 << 20..=24 << 20).contains(&bytes), "{bytes}");
    }
    let contents = summary::RamdiskSummary::of(&build.directory).unwrap();
    let paths: Vec<_> = contents.images.iter().map(|image| image.store_paths.len()).collect();
    assert_eq!((paths.len(), paths.last()), (images.len(), Some(&build.closure.len())));
    let difference = difference::between(&build.directory, &fixture.build().directory).unwrap();
    assert_eq!(difference.store_paths, difference::Change::default());

    let work = tempfile::tempdir().unwrap();
    let mut machine = build.machine(work.path()).unwrap();
    machine.append("probe=verify");
    let report = boot(&machine).unwrap();
    // The uppermost layer comes first.
    let layers: Vec<_> = (0..images.len()).rev().collect();
    for layer in &layers {
        let is_layer = |mount: &&Mount| mount.target == format!("/nix/.ro-store/{layer}");
        assert_eq!(report.mounts.iter().filter(is_layer).count(), 1, "{layer}");
    }
    let overlay = report.mounts.iter().find(|mount| mount.kind == "overlay").unwrap();
    let lower = if fixture.kernel == "6.1" {
        format!("lowerdir={}", layers.iter().map(ToString::to_string).collect::<Vec<_>>().join(":"))
    } else {
        layers.iter().map(|layer| format!("lowerdir+=/nix/.ro-store/{layer}")).collect::<Vec<_>>().join(",")
    };
    assert!(overlay.super_options.starts_with(&format!("rw,{lower},")), "{overlay:?}");
    let [verify] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert!(verify.status == Some(0) && !verify.stderr.contains("/nix/store/"), "{verify:#?}");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

/// Boots the system of a fixture with as many images as the builder takes: many small ones below its own.
fn as_many_images_as_possible(fixture: &Fixture) {
    let work = tempfile::tempdir().unwrap();
    let (tree, small) = (work.path().join("tree"), work.path().join("small"));
    // Each store path is in one image, so these have none.
    fs::create_dir(&tree).unwrap();
    run(Command::new("mksquashfs").arg(&tree).arg(&small).args(["-quiet", "-no-progress"])).unwrap();
    let own = fixture.build().directory.join("nix-store.squashfs");
    let packed = |number: usize| {
        let images = std::iter::repeat_n(small.clone(), number - 1).chain([own.clone()]).collect();
        let directory = work.path().join("build");
        pack_with(&fixture.build().manifest.toplevel, directory, |options| BuildOptions { images, ..options })
    };
    let error = format!("{:#}", packed(MAX_IMAGES + 1).map(drop).unwrap_err());
    assert!(error.contains("stage 1 stacks at most 64 store images"), "{error}");

    let mut machine = packed(MAX_IMAGES).unwrap().machine(work.path()).unwrap();
    // In some kernels this is the number of devices that exist at the start, and never a limit.
    machine.append("loop.max_loop=2 probe=verify");
    let report = boot(&machine).unwrap();
    assert_eq!(report.mounts.iter().filter(|mount| mount.kind == "squashfs").count(), MAX_IMAGES);
    let [verify] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert!(verify.status == Some(0) && !verify.stderr.contains("/nix/store/"), "{verify:#?}");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

#[test]
fn a_1_as_many_images_as_possible_on_6_1() {
    as_many_images_as_possible(&LINUX_6_1);
}

#[test]
fn a_1_as_many_images_as_possible_on_7() {
    as_many_images_as_possible(&LINUX_7);
}

#[test]
fn layers_of_the_build_before() {
    let work = tempfile::tempdir().unwrap();
    let toplevel = &LINUX_6_12.build().manifest.toplevel;
    let build = |name: &str, added: &[PathBuf]| {
        let layers = Some(LayerCache { directory: work.path().join("cache"), max_images: 4 });
        let selection = StoreSelection { added: added.to_vec(), ..StoreSelection::default() };
        pack_with(toplevel, work.path().join(name), |options| BuildOptions { selection, layers, ..options }).unwrap()
    };
    let hashes = |build: &Build| {
        let of = |file: &str| build.manifest.files.iter().find(|entry| entry.name == file).unwrap().sha256.clone();
        build.manifest.images.iter().map(|image| of(&image.file)).collect::<Vec<_>>()
    };
    let file = work.path().join("small");
    fs::write(&file, "changed").unwrap();
    let small = run(Command::new("nix-store").arg("--add").arg(&file)).unwrap();

    let first = hashes(&build("first", &[]));
    let again = build("again", &[]);
    let changed = build("changed", &[small.trim().into()]);
    assert_eq!((first.len(), &first), (4, &hashes(&again)));
    let other = hashes(&changed);
    assert_eq!(first[..3], other[..3]);
    assert_ne!(first[3], other[3]);
    let initrd = |build: &Build| fs::read(build.directory.join("initrd")).unwrap();
    assert!(initrd(&again) == fs::read(work.path().join("first/initrd")).unwrap());

    let mut machine = Machine::of_build(&changed.directory).unwrap();
    machine.append("probe=verify");
    let report = boot(&machine).unwrap();
    let [verify] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert!(verify.status == Some(0) && !verify.stderr.contains("/nix/store/"), "{verify:#?}");
}

#[test]
fn several_images_copied() {
    layers(&LINUX_6_1);
}

#[test]
fn several_images_that_stay_where_the_boot_loader_put_them() {
    layers(&LINUX_6_12);
}

#[test]
fn ramdisks_of_every_compressor() {
    for compressor in [Compressor::Xz, Compressor::Gzip, Compressor::Lz4, Compressor::None] {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-compressor");
        let segments = SegmentOptions { compressor: Some(compressor), ..SegmentOptions::default() };
        let toplevel = &LINUX_6_1.build().manifest.toplevel;
        let build = pack_with(toplevel, directory, |options| BuildOptions { segments, ..options }).unwrap();
        let mut machine = Machine::of_build(&build.directory).unwrap();
        machine.append("firn.register=none probe=facts");
        let report = boot(&machine).unwrap_or_else(|error| panic!("{compressor:?}: {error:#}"));
        assert_eq!(report.boot["warnings"], serde_json::json!([]), "{compressor:?}");
    }
}
