//! Tests of several steps of the boot in sequence, as they run in an initramfs.

use super::attempt::Attempt;
use super::early::{self, Early};
use super::image::expected::ExpectedImage;
use super::kernel::modules::Loader;
use super::kernel::mount::Filesystem;
use super::mounted::Mounted;
use super::parameters::limits::Limits;
use super::parameters::options::{Options, Register};
use super::plan::BootPlan;
use super::start::nixos_init;
use super::store::NewRoot;
use super::system::{self, System};
use super::{database, etc, files, handover, images, registration, root, store};
use crate::contract::kind::Kind;
use crate::contract::nixos_init::Config;
use crate::contract::plan::{DATABASE, Database, FILES, MAX_IMAGES};
use crate::formats::cmdline::CommandLine;
use crate::formats::digest::sha256;
use crate::formats::modules::Texts;
use crate::testing::{enter_initramfs, in_namespaces_of_root, listing, squashfs};
use anyhow::Result;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const TOPLEVEL: &str = "/nix/store/system";

fn image(path: &str) -> ExpectedImage {
    let (bytes, sha256) = sha256(fs::File::open(path).unwrap()).unwrap();
    ExpectedImage { bytes: Some(bytes), sha256: Some(sha256), ..ExpectedImage::at(path) }
}

/// Finds these images, makes the new root and mounts the store, as an attempt of the boot does.
fn mount_store(early: &Early, images: &[ExpectedImage], attempt: &mut Attempt) -> Result<NewRoot> {
    let (texts, cmdline, mut modules) = (Texts::default(), CommandLine::default(), HashSet::new());
    let mut loader = Loader::new("/lib/modules", &texts, &[], &cmdline, &mut modules);
    let found = images::find(images, true, &mut attempt.images, &mut attempt.mounted)?;
    let root = root::create(early, &cmdline, &Options::default(), &mut loader, &mut attempt.mounted)?;
    store::assemble(root, found, &Limits::default(), &mut attempt.mounted)
}

/// The new root with the store of these images.
fn new_root(early: &Early, paths: &[&str]) -> NewRoot {
    let images: Vec<_> = paths.iter().map(|path| image(path)).collect();
    let mut attempt = Attempt::default();
    let root = mount_store(early, &images, &mut attempt).unwrap();
    assert_eq!(attempt.mounted, Mounted::Store);
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
fn b_4_a_required_registration_needs_a_toplevel() {
    in_namespaces_of_root(module_path!(), "b_4_a_required_registration_needs_a_toplevel", || {
        let work = tempfile::tempdir().unwrap();
        let early = initramfs(work.path(), &[("image", &[("x", "")])]);
        let root = new_root(&early, &["/image"]);
        let system = System { init: "/nix/store/x".into(), toplevel: None, ..system() };
        let etc = etc::mount(&root, &system.config, Options::default().etc, &mut Mounted::Store).unwrap();
        let plan = BootPlan::default();
        registration::register(&root, &etc, &system, &plan, Register::Prebuilt).unwrap();
        let error = registration::register(&root, &etc, &system, &plan, Register::Required).unwrap_err().to_string();
        assert!(error.starts_with("/nix/store/x is not part of a NixOS system"), "{error}");
    });
}

#[test]
fn the_last_image_is_the_uppermost_layer() {
    in_namespaces_of_root(module_path!(), "the_last_image_is_the_uppermost_layer", || {
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
    });
}

#[test]
fn a_1_the_kernel_mounts_as_many_images_as_the_builder_makes() {
    in_namespaces_of_root(module_path!(), "a_1_the_kernel_mounts_as_many_images_as_the_builder_makes", || {
        let work = tempfile::tempdir().unwrap();
        let early = initramfs(work.path(), &[("lower", &[("x", "lower"), ("l", "")]), ("upper", &[("x", "upper")])]);
        let lower: Vec<_> = (1..MAX_IMAGES).map(|number| format!("/lower-{number}")).collect();
        for path in &lower {
            fs::copy("/lower", path).unwrap();
        }
        let paths: Vec<_> = lower.iter().map(String::as_str).chain(["/upper"]).collect();
        let root = new_root(&early, &paths);
        root.inside(|| {
            assert_eq!(fs::read_to_string("/nix/store/x")?, "upper");
            assert!(
                Path::new("/nix/store/l").exists()
                    && Path::new(&format!("/nix/.ro-store/{}/x", MAX_IMAGES - 1)).exists()
            );
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn the_next_attempt_mounts_only_what_changed() {
    in_namespaces_of_root(module_path!(), "the_next_attempt_mounts_only_what_changed", || {
        let work = tempfile::tempdir().unwrap();
        let early = initramfs(work.path(), &[("good", &[("x", "good")]), ("other", &[("x", "other")])]);
        let contents = |root: &NewRoot| root.inside(|| Ok(fs::read_to_string("/nix/store/x")?)).unwrap();
        let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
        let mut attempt = Attempt::default();

        // A damaged image that only the kernel recognizes as such. A person puts another one in its place.
        fs::write("/image", b"hsqs and nothing else").unwrap();
        assert!(mount_store(&early, &[image("/image")], &mut attempt).is_err());
        attempt.after_failure("store");
        assert_eq!(attempt.mounted, Mounted::Nothing);
        fs::rename("/good", "/image").unwrap();
        let images = [image("/image")];
        assert_eq!(contents(&mount_store(&early, &images, &mut attempt).unwrap()), "good");

        // Nothing changed.
        let before = mounts();
        assert_eq!(contents(&mount_store(&early, &images, &mut attempt).unwrap()), "good");
        assert_eq!(mounts(), before);
        // A root that a person unmounted is mounted again.
        rustix::mount::unmount("/mnt-root", rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(contents(&mount_store(&early, &images, &mut attempt).unwrap()), "good");
        // An image of another build is refused, and mounted when the plan expects it.
        fs::rename("/other", "/image").unwrap();
        assert!(mount_store(&early, &images, &mut attempt).is_err());
        assert_eq!(contents(&mount_store(&early, &[image("/image")], &mut attempt).unwrap()), "other");
        assert_eq!(mounts().lines().count(), before.lines().count());
    });
}

#[test]
fn an_image_with_another_checksum_is_not_mounted() {
    in_namespaces_of_root(module_path!(), "an_image_with_another_checksum_is_not_mounted", || {
        let work = tempfile::tempdir().unwrap();
        let early = initramfs(work.path(), &[("image", &[("x", "")])]);
        let expected = ExpectedImage { sha256: Some("0".repeat(64)), ..image("/image") };
        let error = mount_store(&early, &[expected], &mut Attempt::default()).map(drop).unwrap_err();
        assert!(format!("{error:#}").contains("is damaged: "), "{error:#}");
    });
}

#[test]
fn after_the_switch_the_initramfs_is_empty() {
    in_namespaces_of_root(module_path!(), "after_the_switch_the_initramfs_is_empty", || {
        let work = tempfile::tempdir().unwrap();
        let mut job = Command::new("/bin/sleep").arg("9").spawn().unwrap();
        let early = initramfs(work.path(), &[("image", &[("x", "contents")])]);
        let old = root::open_directory("/").unwrap();
        let root = new_root(&early, &["/image"]);
        // A disk that a person mounted in the shell keeps its files.
        Filesystem::tmpfs(&[]).mount(Path::new("/stick")).unwrap();
        fs::write("/stick/file", "").unwrap();
        let stick = root::open_directory("/stick").unwrap();
        handover::switch_root(root, &early, &system()).unwrap();
        rustix::fs::statat(&stick, "file", rustix::fs::AtFlags::empty()).unwrap();
        assert!(job.wait().map_or(true, |status| !status.success()), "it was killed");
        assert_eq!(fs::read_to_string("/nix/store/x").unwrap(), "contents");
        assert!(Path::new("/dev/null").exists() && Path::new("/proc/1").exists() && !Path::new("/image").exists());
        // Only the mount points of the new root and of the first step are left.
        let left: Vec<_> = rustix::fs::Dir::read_from(&old)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.') && name != "stick")
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
        // The guard of the store is there already.
        fs::remove_dir_all("/nix/var")?;
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
        (&system().init, "of the initramfs"),
    ] {
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    fs::set_permissions(system().init, fs::Permissions::from_mode(0o755)).unwrap();
    let places = ["/etc", "/persist", "/firn", "/nix", "/usr", "/bin"];
    let list =
        || -> Vec<_> { places.iter().filter(|path| Path::new(path).exists()).flat_map(|path| listing(path)).collect() };
    let before = list();
    let etc =
        etc::mount(&root, &Config::default(), super::parameters::options::Etc::Mutable, &mut Mounted::Store).unwrap();
    let prebuilt = Database { path: DATABASE.into(), schema: 10 };
    let plan = BootPlan {
        init: Some(system().init),
        database: Some(prebuilt.clone()),
        roots: vec![TOPLEVEL.into()],
        ..BootPlan::default()
    };
    let results = [
        database::make(&root, TOPLEVEL, Some(&prebuilt)).is_ok(),
        registration::register(&root, &etc, &system(), &plan, Register::Required).is_ok(),
        files::copy(&root, &etc, &system()).is_ok(),
    ];
    // The init of the new root cannot be executed, the one of the initramfs could.
    system::find(&root, &CommandLine::default(), &plan).unwrap_err();
    let config = Config { env_binary: Some("/x/env".into()), sh_binary: Some("/x/sh".into()), ..Config::default() };
    root.inside(|| nixos_init::activate(TOPLEVEL, &config)).unwrap();
    assert_eq!(list(), before);
    (PathBuf::from("/mnt-root"), results)
}

#[test]
fn an_absolute_symlink_of_the_root_leads_into_the_root() {
    in_namespaces_of_root(module_path!(), "an_absolute_symlink_of_the_root_leads_into_the_root", || {
        let (root, results) = with_symlinks(
            &[("/nix/var", "/persist/nix/var"), ("/usr", "/persist/usr")],
            &["/persist/nix/var", "/persist/usr"],
        );
        assert_eq!(results, [true; 3]);
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("persist/nix/var/nix/db/db.sqlite"), "prebuilt");
        assert_eq!(read("etc/key"), "secret");
        assert_eq!(fs::read_link(root.join("persist/usr/bin/env")).unwrap(), Path::new("/x/env"));
        // Generation 1: the profiles of the initramfs do not count.
        let link = fs::read_link(root.join("persist/nix/var/nix/profiles/system")).unwrap();
        assert_eq!(link, Path::new("system-1-link"));
    });
}

#[test]
fn a_relative_symlink_of_the_root_does_not_leave_it() {
    in_namespaces_of_root(module_path!(), "a_relative_symlink_of_the_root_does_not_leave_it", || {
        // Inside of the new root this symlink leads to itself.
        let (_, results) = with_symlinks(&[("/etc", "../../etc")], &[]);
        // The files are a warning.
        assert_eq!(results, [true, false, true]);
    });
}

#[test]
fn after_a_panic_inside_of_the_new_root_the_initramfs_is_the_root_again() {
    in_namespaces_of_root(
        module_path!(),
        "after_a_panic_inside_of_the_new_root_the_initramfs_is_the_root_again",
        || {
            let work = tempfile::tempdir().unwrap();
            let early = initramfs(work.path(), &[("image", &[("x", "")])]);
            let root = new_root(&early, &["/image"]);
            let panicked =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| root.inside(|| -> Result<()> { panic!() })));
            assert!(panicked.is_err() && !Path::new("/image").exists());
            root::leave().unwrap();
            assert!(Path::new("/image").exists());
            root::leave().unwrap();
        },
    );
}

#[test]
fn b_2_secrets_of_stage_1_stay_in_stage_1() {
    in_namespaces_of_root(module_path!(), "b_2_secrets_of_stage_1_stay_in_stage_1", || {
        let work = tempfile::tempdir().unwrap();
        let early = initramfs(work.path(), &[("image", &[("x", "")])]);
        // A ramdisk without secrets.
        files::copy_secrets();
        for (path, text) in [
            (".initrd-secrets/etc/hostid", "abcd"),
            (".initrd-secrets/etc/ssh/ssh_host_rsa_key", "secret"),
            (".initrd-secrets/run/keys/key", "secret"),
            ("firn/root/etc/x", "of the host"),
            ("etc/hostid", "of the ramdisk"),
        ] {
            fs::create_dir_all(Path::new("/").join(path).parent().unwrap()).unwrap();
            fs::write(Path::new("/").join(path), text).unwrap();
        }
        symlink("key", "/.initrd-secrets/run/keys/link").unwrap();
        fs::set_permissions("/.initrd-secrets/etc/hostid", fs::Permissions::from_mode(0o600)).unwrap();
        files::copy_secrets();
        let read = |path: &str| fs::read_to_string(path).unwrap();
        assert_eq!(
            [read("/etc/hostid"), read("/etc/ssh/ssh_host_rsa_key"), read("/run/keys/link")],
            ["abcd", "secret", "secret"]
        );
        assert_eq!(fs::metadata("/etc/hostid").unwrap().permissions().mode() & 0o777, 0o600);
        // A host id among them is the one of stage 1.
        let plan = BootPlan { host_id: Some(7), ..BootPlan::default() };
        super::host_id::set(&Options::default(), &plan).unwrap();
        assert_eq!(read("/etc/hostid"), "abcd");

        let root = new_root(&early, &["/image"]);
        let etc = etc::mount(&root, &Config::default(), super::parameters::options::Etc::Mutable, &mut Mounted::Store)
            .unwrap();
        files::copy(&root, &etc, &system()).unwrap();
        assert_eq!(listing("/mnt-root/etc"), ["/mnt-root/etc/x of the host"]);
        assert!(!Path::new("/mnt-root/.initrd-secrets").exists());
        // As in NixOS: the running system gets this mount.
        assert_eq!(read("/mnt-root/run/keys/key"), "secret");
    });
}
