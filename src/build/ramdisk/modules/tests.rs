use super::*;
use crate::build::system::modprobe::{self, ModprobeConfig};
use crate::contract::kind::Kind;
use std::io::Write;
use std::path::PathBuf;

/// A system whose kernel has a module directory with these two files.
fn system(directory: &Path, dep: &str, builtin: &str) -> NixosSystem {
    fs::write(directory.join("modules.dep"), dep).unwrap();
    fs::write(directory.join("modules.builtin"), builtin).unwrap();
    NixosSystem {
        toplevel: PathBuf::new(),
        init: String::new(),
        kernel: PathBuf::new(),
        kernel_release: "6.9".into(),
        kernel_params: Vec::new(),
        modules: Some(directory.into()),
        modprobe: ModprobeConfig::default(),
        firmware: None,
        label: String::new(),
        platform: String::new(),
        host_id: None,
        kind: Kind::NixosInit,
        interpreter: None,
        etc_overlay: false,
    }
}

fn packed(modules: Modules) -> Vec<(String, String)> {
    let file = |file: RamdiskFile| (file.path, String::from_utf8(file.contents).unwrap());
    modules.files.into_iter().map(file).collect()
}

/// A system whose modules squashfs and zlib are compressed, with the drivers of a disk.
fn with_files(path: &Path) -> NixosSystem {
    let mut xz = liblzma::write::XzEncoder::new(fs::File::create(path.join("squashfs.ko.xz")).unwrap(), 6);
    xz.write_all(b"squashfs").unwrap();
    xz.finish().unwrap();
    fs::write(path.join("zlib.ko.zst"), zstd::encode_all(&b"zlib"[..], 3).unwrap()).unwrap();
    for name in ["overlay", "virtio-blk", "virtio"] {
        fs::write(path.join(name).with_extension("ko"), name).unwrap();
    }
    fs::write(path.join("modules.alias"), "alias virtio:d2v* virtio_blk\nalias pci:x other\n").unwrap();
    let dep = "squashfs.ko.xz: zlib.ko.zst\nzlib.ko.zst:\noverlay.ko:\nvirtio-blk.ko: virtio.ko\nvirtio.ko:\n";
    system(path, dep, "kernel/loop.ko\n")
}

const REQUIRED: [(&str, &str); 3] = [
    ("/lib/modules/6.9/zlib.ko", "zlib"),
    ("/lib/modules/6.9/squashfs.ko", "squashfs"),
    ("/lib/modules/6.9/overlay.ko", "overlay"),
];

fn owned<const N: usize>(files: [(&str, &str); N]) -> Vec<(String, String)> {
    files.map(|(path, contents)| (path.into(), contents.into())).into()
}

#[test]
fn compressed_files_arrive_raw_and_built_in_ones_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let modules = collect(&with_files(directory.path()), Format::Squashfs, &[], &[], false, Progress::Quiet).unwrap();
    assert_eq!(modules.load, REQUIRED.map(|(path, _)| path));
    assert_eq!(packed(modules), owned(REQUIRED));
}

#[test]
fn modules_of_the_user() {
    let directory = tempfile::tempdir().unwrap();
    let system = with_files(directory.path());
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let drivers = owned([("/lib/modules/6.9/virtio.ko", "virtio"), ("/lib/modules/6.9/virtio-blk.ko", "virtio-blk")]);

    let forced =
        collect(&system, Format::Squashfs, &names(&["virtio_blk", "loop"]), &[], false, Progress::Quiet).unwrap();
    assert_eq!(forced.load[3..], ["/lib/modules/6.9/virtio.ko", "/lib/modules/6.9/virtio-blk.ko"]);
    assert_eq!(packed(forced)[3..], drivers);

    let available = collect(&system, Format::Squashfs, &[], &names(&["virtio:d2v1"]), false, Progress::Quiet).unwrap();
    assert_eq!(available.load, REQUIRED.map(|(path, _)| path));
    let files = packed(available);
    assert_eq!(files[3..5], drivers);
    let dep = "squashfs.ko: zlib.ko\nzlib.ko:\noverlay.ko:\nvirtio-blk.ko: virtio.ko\nvirtio.ko:\n";
    assert_eq!(
        files[5..],
        owned([
            ("/lib/modules/6.9/modules.dep", dep),
            ("/lib/modules/6.9/modules.builtin", "kernel/loop.ko\n"),
            ("/lib/modules/6.9/modules.alias", "alias virtio:d2v* virtio_blk\n"),
            ("/lib/modules/6.9/modules.softdep", ""),
        ])
    );

    let error = collect(&system, Format::Squashfs, &names(&["virtio-blx"]), &[], false, Progress::Quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no module virtio-blx,") && error.contains("did you mean virtio_blk? Or"), "{error}");
    let error = collect(
        &NixosSystem { modules: None, ..system },
        Format::Squashfs,
        &[],
        &names(&["x"]),
        false,
        Progress::Quiet,
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("leave out --module and --available-module"), "{error}");
}

#[test]
fn a_9_modules_that_are_compressed_by_gzip_or_lie_elsewhere_are_packed() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = directory.path();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(b"from gzip").unwrap();
    fs::write(path.join("squashfs.ko.gz"), gz.finish().unwrap()).unwrap();
    fs::write(elsewhere.path().join("overlay.ko"), "from elsewhere").unwrap();
    let overlay = elsewhere.path().join("overlay.ko").to_str().unwrap().to_owned();
    let system = system(path, &format!("squashfs.ko.gz:\n{overlay}: squashfs.ko.gz\n"), "kernel/loop.ko\n");
    let modules = collect(&system, Format::Squashfs, &[], &["overlay".into()], false, Progress::Quiet).unwrap();
    let files = packed(modules);
    let packed_overlay = format!("/lib/modules/6.9{overlay}");
    assert_eq!(
        files[..3],
        owned([
            ("/lib/modules/6.9/squashfs.ko", "from gzip"),
            (&packed_overlay, "from elsewhere"),
            ("/lib/modules/6.9/modules.dep", &format!("squashfs.ko:\n{}: squashfs.ko\n", &overlay[1..])),
        ])
    );
    fs::write(path.join("squashfs.ko.gz"), "no gzip").unwrap();
    let error = collect(&system, Format::Squashfs, &[], &[], false, Progress::Quiet).unwrap_err();
    assert!(format!("{error:#}").starts_with("reading the module"), "{error:#}");
}

#[test]
fn a_9_the_builder_names_what_is_built_in() {
    let directory = tempfile::tempdir().unwrap();
    let system = with_files(directory.path());
    let modinfo = b"loop.alias=block-major-7-*\0loop.author=\xff\0";
    fs::write(directory.path().join(MODINFO), modinfo).unwrap();
    let texts = read_texts(directory.path()).unwrap();
    let index = Index::parse(&texts);
    for (names, expected) in [
        (&["virtio_blk"][..], None),
        (&["loop"], Some("loop is built into the kernel: the ramdisk needs no file for it")),
        (
            &["loop", "virtio", "loop", "block-major-7-1"],
            Some("loop and block-major-7-1 are built into the kernel: the ramdisk needs no files for them"),
        ),
    ] {
        assert_eq!(built_in_note(&index, names).as_deref(), expected, "{names:?}");
    }
    let names = ["block-major-7-1", "virtio_blk"].map(String::from);
    let files = packed(collect(&system, Format::Squashfs, &names[..1], &names[1..], false, Progress::Quiet).unwrap());
    let modinfo = ("/lib/modules/6.9/modules.builtin.modinfo".to_owned(), "loop.alias=block-major-7-*\0".to_owned());
    assert_eq!(files.last(), Some(&modinfo));
    let error =
        collect(&system, Format::Squashfs, &["block-major-8-1".into()], &[], false, Progress::Quiet).unwrap_err();
    assert!(error.to_string().contains("no module block-major-8-1"), "{error}");
}

#[test]
fn b_11_a_kernel_with_everything_built_in_needs_no_depmod() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let builtin = "kernel/loop.ko\nkernel/squashfs.ko\nkernel/overlay.ko\nkernel/virtio_blk.ko\n";
    let system = system(path, "", builtin);
    let collect = |named: &[&str]| {
        let names: Vec<_> = named.iter().map(ToString::to_string).collect();
        collect(&system, Format::Squashfs, &names, &[], false, Progress::Quiet)
            .map(|modules| (modules.load, modules.files.len()))
    };
    let nothing = || assert_eq!(collect(&["virtio_blk"]).unwrap(), (vec![], 0));
    let fails = |named: &[&str], expected: &str| {
        let error = format!("{:#}", collect(named).unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    nothing();
    fs::remove_file(path.join("modules.dep")).unwrap();
    // The kernel's source may have modules of other kernels.
    fs::create_dir_all(path.join("build/fs")).unwrap();
    fs::write(path.join("build/fs/x.ko"), "").unwrap();
    nothing();
    fails(&["dm_mod"], "has no module dm_mod");
    fs::create_dir(path.join("kernel")).unwrap();
    fs::write(path.join("kernel/x.ko.xz"), "").unwrap();
    fails(&[], "modules.dep, which depmod writes");

    // A kernel that cannot load modules.
    fs::remove_file(path.join("kernel/x.ko.xz")).unwrap();
    fs::remove_file(path.join("modules.builtin")).unwrap();
    fs::write(path.join("vmlinuz"), "").unwrap();
    assert_eq!(collect(&[]).unwrap(), (vec![], 0));
    fails(&["loop"], "leave out --module and --available-module");
}

#[test]
fn a_missing_module_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut system = system(directory.path(), "", "kernel/loop.ko\n");
    for (etc_overlay, expected) in [
        (false, "6.9 has no squashfs and no overlay, neither"),
        (true, "6.9 has no squashfs and no overlay and no erofs"),
    ] {
        system.etc_overlay = etc_overlay;
        let error = collect(&system, Format::Squashfs, &[], &[], false, Progress::Quiet).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn c_13_missing_modules_are_left_out_on_request_and_those_of_stage_1_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let system = with_files(directory.path());
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (forced, available) = (names(&["virtio_blk", "no-such"]), names(&["sata_nv", "ahci", "loop"]));
    let made = collect(&system, Format::Squashfs, &forced, &available, true, Progress::Quiet).unwrap();
    assert_eq!(made.load[3..], ["/lib/modules/6.9/virtio.ko", "/lib/modules/6.9/virtio-blk.ko"]);
    assert!(made.files.iter().all(|file| !file.path.contains("such") && !file.path.contains("ahci")));
    collect(&system, Format::Squashfs, &[], &available, false, Progress::Quiet).unwrap_err();
    let error = collect(&system, Format::Erofs, &[], &[], true, Progress::Quiet).unwrap_err().to_string();
    assert!(error.contains("has no erofs"), "{error}");
    let without = NixosSystem { modules: None, ..system };
    assert!(collect(&without, Format::Squashfs, &forced, &available, true, Progress::Quiet).unwrap().load.is_empty());
}

#[test]
fn c_13_the_error_about_a_missing_module_names_the_flag() {
    let directory = tempfile::tempdir().unwrap();
    let system = with_files(directory.path());
    let error = |name: &str| {
        let names = [name.to_owned()];
        collect(&system, Format::Squashfs, &[], &names, false, Progress::Quiet).unwrap_err().to_string()
    };
    for (name, expected) in [("virtio-blx", Some("virtio_blk")), ("sun4i-drm", None), ("zfs", None)] {
        let error = error(name);
        assert!(error.contains("--allow-missing-modules") && error.contains(name), "{error}");
        assert_eq!(error.contains("did you mean"), expected.is_some(), "c_12: {error}");
        assert!(error.contains(expected.unwrap_or_default()), "{error}");
    }
}

#[test]
fn c_13_files_of_a_kernel_that_are_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let system = with_files(path);
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let collect =
        |available: &[&str], allow| collect(&system, Format::Squashfs, &[], &names(available), allow, Progress::Quiet);
    let fails = |available: &[&str], allow, words: &[&str]| {
        let error = format!("{:#}", collect(available, allow).unwrap_err());
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };

    // A module without its file, and one that needs it.
    fs::remove_file(path.join("virtio.ko")).unwrap();
    for name in ["virtio", "virtio_blk"] {
        fails(&[name], false, &["virtio.ko, which modules.dep lists; run depmod"]);
        let made = collect(&[name], true).unwrap();
        assert!(made.files.iter().all(|file| !file.path.contains("virtio")));
    }
    fs::remove_file(path.join("overlay.ko")).unwrap();
    fails(&[], true, &["has no overlay"]);
    fs::write(path.join("overlay.ko"), "overlay").unwrap();

    // The names of built-in modules are in another file, too.
    fs::remove_file(path.join("modules.builtin")).unwrap();
    fails(&[], false, &["modules.builtin, which comes from the build of the kernel; install it with"]);
    fs::write(path.join(MODINFO), b"loop.license=GPL\0loop.file=drivers/block/loop\0nvme_core.license=GPL\0").unwrap();
    let made = packed(collect(&["nvme-core", "squashfs"], false).unwrap());
    assert!(made.contains(&("/lib/modules/6.9/modules.builtin".into(), "loop.ko\nnvme_core.ko\n".into())), "{made:?}");

    let dep = fs::read_to_string(path.join("modules.dep")).unwrap();
    for bad in ["../x.ko:", "kernel/../../x.ko:", "/a/../x.ko:", "x.ko: ../y.ko"] {
        fs::write(path.join("modules.dep"), format!("{dep}{bad}\n")).unwrap();
        fails(&[], false, &["modules.dep has the path", "run depmod again"]);
    }
    fs::write(path.join("modules.dep"), format!("{dep}a..b.ko:\n")).unwrap();
    collect(&[], false).unwrap();
    fs::remove_file(path.join("modules.dep")).unwrap();
    fails(&[], false, &["modules.dep, which depmod writes; run depmod"]);
}

#[test]
fn d_2_modules_that_the_systems_modprobe_d_leaves_out_or_gives_parameters() {
    let (directory, toplevel) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let etc = toplevel.path().join("etc/modprobe.d");
    fs::create_dir_all(&etc).unwrap();
    let text = "blacklist squashfs\nblacklist virtio-blk\ninstall overlay /bin/true\ninstall zlib /bin/echo\n\
                options virtio ids=1\noptions other x=1\nsoftdep overlay post: virtio\n";
    fs::write(etc.join("nixos.conf"), text).unwrap();
    let system = NixosSystem { modprobe: modprobe::read(toplevel.path()).unwrap(), ..with_files(directory.path()) };
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let available = names(&["zlib", "virtio_blk", "virtio:d2v1"]);
    let modules =
        collect(&system, Format::Squashfs, &names(&["virtio-blk"]), &available, false, Progress::Quiet).unwrap_err();
    assert!(modules.to_string().contains("no module virtio:d2v1,"), "{modules}");
    let modules =
        collect(&system, Format::Squashfs, &names(&["virtio-blk"]), &available[..2], false, Progress::Quiet).unwrap();
    // The store needs squashfs, squashfs needs zlib, and overlay wants virtio.
    let virtio = "/lib/modules/6.9/virtio.ko";
    assert_eq!(modules.load, [REQUIRED[0].0, REQUIRED[1].0, REQUIRED[2].0, virtio]);
    assert_eq!(modules.options, ["virtio ids=1"]);
    assert_eq!(packed(modules).len(), 4, "and no index: no module is left that a device asks for");
}
