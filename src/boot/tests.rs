//! Tests of several steps of the boot in sequence, as they run in an initramfs.

use super::early::{self, Early};
use super::image::expected::ExpectedImage;
use super::kernel::modules::Loader;
use super::parameters::options::{Limits, Register};
use super::store::NewRoot;
use super::system::System;
use super::{database, etc, files, handover, images, registration, root, store};
use crate::contract::kind::Kind;
use crate::contract::nixos_init::Config;
use crate::contract::plan::{DATABASE, Database, FILES};
use crate::formats::cmdline::CommandLine;
use crate::formats::digest::sha256;
use crate::formats::modules::Texts;
use crate::testing::{enter_initramfs, in_namespaces, listing, squashfs};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const TOPLEVEL: &str = "/nix/store/system";

fn image(path: &str) -> ExpectedImage {
    let (bytes, sha256) = sha256(fs::File::open(path).unwrap()).unwrap();
    ExpectedImage { bytes: Some(bytes), sha256: Some(sha256), ..ExpectedImage::at(path) }
}

/// The new root with the store of these images.
fn new_root(early: &Early, paths: &[&str]) -> NewRoot {
    let (texts, cmdline, mut known) = (Texts::default(), CommandLine::default(), HashSet::new());
    let mut loader = Loader::new("/lib/modules", &texts, &cmdline, &mut known);
    let paths: Vec<_> = paths.iter().map(|path| image(path)).collect();
    let (mut found, mut has_store) = (Vec::new(), false);
    let images = images::find(&paths, true, &mut found).unwrap();
    let root = root::create(early, &cmdline, &Limits::default(), &mut loader, has_store).unwrap();
    let root = store::assemble(root, images, &Limits::default(), &mut has_store).unwrap();
    assert!(has_store);
    root
}

fn system() -> System {
    let init = format!("{TOPLEVEL}/init");
    System { init, toplevel: Some(TOPLEVEL.into()), kind: Kind::Classic, config: Config::default() }
}

/// Makes an initramfs of store images, with the mounts of its first step.
fn initramfs(work: &Path, images: &[(&str, &[(&str, &str)])]) -> Early {
    let files: Vec<_> = images.iter().map(|(name, files)| (*name, squashfs(work, name, files))).collect();
    let directory = work.join("initramfs");
    fs::create_dir(&directory).unwrap();
    enter_initramfs(&directory, &files.iter().map(|(name, file)| (*name, file.as_path())).collect::<Vec<_>>());
    early::mount().unwrap()
}

#[test]
fn the_last_image_is_the_uppermost_layer() {
    in_namespaces(module_path!(), "the_last_image_is_the_uppermost_layer", || {
        let work = tempfile::tempdir().unwrap();
        let early = initramfs(
            work.path(),
            &[
                ("lower", &[("x", "lower"), ("l", "")]),
                ("middle", &[("x", "middle"), ("m", "")]),
                ("upper", &[("x", "upper")]),
            ],
        );
        let root = new_root(&early, &["/lower", "/middle", "/upper"]);
        root.inside(|| {
            assert_eq!(fs::read_to_string("/nix/store/x")?, "upper");
            assert!(Path::new("/nix/store/l").exists() && Path::new("/nix/store/m").exists());
            fs::write("/nix/store/new", "")?;
            assert!(Path::new("/nix/.rw-store/store/new").exists());
            Ok(())
        })
        .unwrap();
        // The next attempt uses the same root and mounts nothing.
        let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
        let before = mounts();
        let (texts, cmdline, mut known) = (Texts::default(), CommandLine::default(), HashSet::new());
        let mut loader = Loader::new("/lib/modules", &texts, &cmdline, &mut known);
        let again = root::create(&early, &cmdline, &Limits::default(), &mut loader, true).unwrap();
        store::assemble(again, &[], &Limits::default(), &mut true).unwrap();
        assert_eq!(mounts(), before);
    });
}

#[test]
fn after_the_switch_the_initramfs_is_empty() {
    in_namespaces(module_path!(), "after_the_switch_the_initramfs_is_empty", || {
        let work = tempfile::tempdir().unwrap();
        let early = initramfs(work.path(), &[("image", &[("x", "contents")])]);
        let old = root::open_directory("/").unwrap();
        let root = new_root(&early, &["/image"]);
        handover::switch_root(root, &early, &system()).unwrap();
        assert_eq!(fs::read_to_string("/nix/store/x").unwrap(), "contents");
        assert!(Path::new("/dev/null").exists() && Path::new("/proc/1").exists() && !Path::new("/image").exists());
        // Only the mount points of the new root and of the first step are left.
        let left: Vec<_> = rustix::fs::Dir::read_from(&old)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect();
        assert_eq!(left, [""; 0]);
    });
}

/// Makes a new root with these symlinks and directories, as a root on a disk may have them. Runs the steps that write to the new root,
/// and checks that they change nothing in the initramfs. Returns whether each succeeded: the database, the registration, the files.
fn with_symlinks(links: &[(&str, &str)], directories: &[&str]) -> (PathBuf, [bool; 3]) {
    let work = tempfile::tempdir().unwrap().keep();
    let early = initramfs(&work, &[("image", &[("system/init", "")])]);
    let root = new_root(&early, &["/image"]);
    root.inside(|| {
        for directory in directories {
            fs::create_dir_all(directory)?;
        }
        for (link, target) in links {
            fs::create_dir_all(Path::new(link).parent().unwrap())?;
            symlink(target, link)?;
        }
        Ok(())
    })
    .unwrap();
    // Files of the initramfs with the same names.
    for (path, contents) in [
        (DATABASE, "prebuilt"),
        (&format!("{FILES}/etc/key"), "secret"),
        ("/etc/passwd", "of the initramfs"),
        ("/persist/nix/var/nix/db/db.sqlite", "of the initramfs"),
        ("/persist/nix/var/nix/profiles/system-7-link", "of the initramfs"),
    ] {
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    let places = ["/etc", "/persist", "/firn", "/nix", "/usr", "/bin"];
    let list =
        || -> Vec<_> { places.iter().filter(|path| Path::new(path).exists()).flat_map(|path| listing(path)).collect() };
    let before = list();
    let etc = etc::mount(&root, &Config::default(), super::parameters::options::Etc::Mutable, &mut false).unwrap();
    let prebuilt = Database { path: DATABASE.into(), schema: 10 };
    let results = [
        database::make(&root, TOPLEVEL, Some(&prebuilt)).is_ok(),
        registration::register(&root, &etc, &system(), Some(&prebuilt), Register::Required).is_ok(),
        files::copy(&root, &etc).is_ok(),
    ];
    assert_eq!(list(), before);
    (PathBuf::from("/mnt-root"), results)
}

#[test]
fn an_absolute_symlink_of_the_root_leads_into_the_root() {
    in_namespaces(module_path!(), "an_absolute_symlink_of_the_root_leads_into_the_root", || {
        let (root, results) = with_symlinks(&[("/nix/var", "/persist/nix/var")], &["/persist/nix/var"]);
        assert_eq!(results, [true; 3]);
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("persist/nix/var/nix/db/db.sqlite"), "prebuilt");
        assert_eq!(read("etc/key"), "secret");
        // Generation 1: the profiles of the initramfs do not count.
        let link = fs::read_link(root.join("persist/nix/var/nix/profiles/system")).unwrap();
        assert_eq!(link, Path::new("system-1-link"));
    });
}

#[test]
fn a_relative_symlink_of_the_root_does_not_leave_it() {
    in_namespaces(module_path!(), "a_relative_symlink_of_the_root_does_not_leave_it", || {
        // Inside of the new root this symlink leads to itself.
        let (_, results) = with_symlinks(&[("/etc", "../../etc")], &[]);
        assert_eq!(results, [true, false, false]);
    });
}
