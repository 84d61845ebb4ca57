mod modes;
mod of_system;

use super::*;
use crate::boot::kernel::mount::Filesystem;
use crate::testing::{enter_initramfs, in_namespaces, in_namespaces_of_root, listing};
use rustix::fs::mknodat;
use rustix::mount::MountAttrFlags;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

/// Runs `body` in namespaces of its own, with an empty directory `/from` for an archive and an empty tmpfs as the root.
fn in_root(test: &str, body: impl FnOnce()) {
    in_namespaces(module_path!(), test, || {
        let root = tempfile::tempdir().unwrap();
        enter_initramfs(root.path(), &[]);
        fs::create_dir("/from").unwrap();
        body();
    });
}

/// Makes files with these contents and directories above them (mode 0755).
fn write(files: &[(&str, &str)]) {
    for (path, contents) in files {
        fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
}

fn set_mode(path: &str, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn link(target: &str, path: &str) {
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

fn mode(path: &str) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Copies the files below `/from` to `/`. Returns the warnings.
fn copy_all() -> Vec<String> {
    copy_for(None)
}

/// The same, for a system whose activation fills `/etc`.
fn copy_for(toplevel: Option<&str>) -> Vec<String> {
    let mut walk = Walk { of_host: true, etc: EtcOfSystem { toplevel }, ..Walk::default() };
    walk.copy_all("/from", &open(CWD, c"/from", OFlags::DIRECTORY).unwrap()).unwrap();
    walk.warnings
}

#[test]
fn files_arrive_as_they_are() {
    in_root("files_arrive_as_they_are", || {
        write(&[("/from/etc/x/key", "secret"), ("/from/etc/tool", ""), ("/from/home/key", "")]);
        for (path, bits) in [("etc", 0o700), ("etc/x", 0o711), ("etc/x/key", 0o600), ("etc/tool", 0o4755)] {
            set_mode(&format!("/from/{path}"), bits);
        }
        link("/nowhere", "/from/etc/link");
        File::open("/from/etc/x/key").unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        write(&[("/other", "untouched"), ("/etc/link/x", "")]);
        fs::remove_dir_all("/etc/link").unwrap();
        set_mode("/etc", 0o750);
        // A symlink at the path of a file: the copy replaces the symlink, not its target.
        link("/other", "/etc/tool");

        assert_eq!(copy_all(), [""; 0]);
        assert_eq!(read("/etc/x/key"), "secret");
        assert_eq!(fs::metadata("/etc/x/key").unwrap().mtime(), 0);
        assert_eq!(fs::read_link("/etc/link").unwrap(), Path::new("/nowhere"));
        assert_eq!(read("/other"), "untouched");
        // The existing directory keeps its mode.
        assert_eq!(["/etc", "/etc/x", "/etc/x/key", "/etc/tool"].map(mode), [0o750, 0o711, 0o600, 0o4755]);
        assert_eq!(listing("/etc").len(), 4, "{:?}", listing("/etc"));
    });
}

#[test]
fn files_keep_their_owners() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can change owners");
    }
    in_root("files_keep_their_owners", || {
        write(&[("/from/data/key", "secret")]);
        link("key", "/from/data/link");
        let paths = [("data", 1000, 100), ("data/key", 1001, 101), ("data/link", 1002, 102)];
        for (path, user, group) in paths {
            lchown(format!("/from/{path}"), Some(user), Some(group)).unwrap();
        }
        set_mode("/from/data/key", 0o4600);
        assert_eq!(copy_all(), [""; 0]);
        for (path, user, group) in paths {
            let found = fs::symlink_metadata(format!("/{path}")).unwrap();
            assert_eq!((found.uid(), found.gid()), (user, group), "{path}");
        }
        assert_eq!(mode("/data/key"), 0o4600);
    });
}

#[test]
fn a_7_sockets_pipes_and_devices_are_made() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can make devices");
    }
    in_root("a_7_sockets_pipes_and_devices_are_made", || {
        fs::create_dir("/from/srv").unwrap();
        for (name, kind, device) in [
            ("pipe", FileType::Fifo, 0),
            ("socket", FileType::Socket, 0),
            ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            ("vda", FileType::BlockDevice, rustix::fs::makedev(253, 0)),
        ] {
            let path = format!("/from/srv/{name}");
            mknodat(CWD, &*path, kind, Mode::from(0o600), device).unwrap();
            chown(&path, Some(12), Some(34)).unwrap();
            set_mode(&path, 0o640);
        }
        write(&[("/from/srv/z", "behind them")]);
        // An existing file is replaced, too.
        write(&[("/srv/pipe", "")]);
        assert_eq!(copy_all(), [""; 0]);
        for name in ["pipe", "socket", "null", "vda"] {
            let [from, to] = ["/from/srv", "/srv"].map(|at| fs::symlink_metadata(format!("{at}/{name}")).unwrap());
            let status = |of: &fs::Metadata| (of.mode(), of.rdev(), of.uid(), of.gid());
            assert_eq!(status(&from), status(&to), "{name}");
        }
        assert!(fs::symlink_metadata("/srv/pipe").unwrap().file_type().is_fifo());
        assert_eq!(read("/srv/z"), "behind them");
    });
}

#[test]
fn a_7_a_file_that_cannot_be_copied_is_a_warning() {
    in_root("a_7_a_file_that_cannot_be_copied_is_a_warning", || {
        write(&[
            ("/from/a/file/x", ""),
            ("/from/a/directory", ""),
            ("/from/a/link/x", ""),
            ("/from/a/link/deeper/y", ""),
            ("/from/a/loop/x", ""),
            ("/from/a/z", "arrives"),
            ("/a/file", "stays"),
            ("/a/directory/x", "stays"),
        ]);
        link("/persist/later", "/a/link");
        link("loop", "/a/loop");
        let mut warnings = copy_all();
        warnings.sort();
        let [directory, file, link, looped] = warnings.as_slice() else { panic!("{warnings:#?}") };
        assert!(directory.starts_with("Not copying /a/directory: ") && directory.contains("a directory is in the way"));
        assert!(file.starts_with("Not copying /a/file: a file is in the way"), "{file}");
        assert!(
            link.starts_with("Not copying /a/link: it is a symlink to /persist/later, which is no directory"),
            "{link}"
        );
        assert!(looped.starts_with("Not copying /a/loop: it is a symlink to loop"), "{looped}");
        assert_eq!((&*read("/a/z"), &*read("/a/file"), &*read("/a/directory/x")), ("arrives", "stays", "stays"));
        assert_eq!(fs::read_link("/a/link").unwrap(), Path::new("/persist/later"));
        assert!(!listing("/a").iter().any(|path| path.contains(".firn-init")), "{:?}", listing("/a"));
    });
}

#[test]
fn a_7_a_file_is_replaced_only_by_a_complete_one() {
    in_root("a_7_a_file_is_replaced_only_by_a_complete_one", || {
        Filesystem::tmpfs(&[("size", "16k")]).mount(Path::new("/small")).unwrap();
        write(&[("/from/small/key", &"x".repeat(1 << 20)), ("/small/key", "whole"), ("/from/small/other", "y")]);
        let warnings = copy_all();
        assert!(warnings.len() == 1 && warnings[0].contains("No space left on device"), "{warnings:#?}");
        assert_eq!((&*read("/small/key"), &*read("/small/other")), ("whole", "y"));
        assert_eq!(fs::read_dir("/small").unwrap().count(), 2);
        // What a machine that crashed left is no obstacle.
        write(&[("/small/.firn-init.new", "half"), ("/from/small/key", "new")]);
        assert_eq!(copy_all(), [""; 0]);
        assert_eq!((read("/small/key").as_str(), fs::read_dir("/small").unwrap().count()), ("new", 2));
    });
}

#[test]
fn a_7_a_read_only_directory_is_one_warning_with_advice() {
    in_root("a_7_a_read_only_directory_is_one_warning_with_advice", || {
        let etc = Filesystem { attributes: MountAttrFlags::MOUNT_ATTR_RDONLY, ..Filesystem::tmpfs(&[]) };
        etc.mount(Path::new("/etc")).unwrap();
        write(&[("/from/etc/ssh/key", ""), ("/from/etc/ssh/deeper/key", ""), ("/from/data", "arrives")]);
        let warnings = copy_all();
        assert!(warnings.len() == 1 && warnings[0].starts_with("Not copying /etc/ssh: Read-only file system"));
        assert!(warnings[0].contains("remove firn.etc=immutable from the kernel command line"), "{warnings:#?}");
        assert_eq!(read("/data"), "arrives");
    });
}

#[test]
fn a_7_a_symlink_to_a_directory_is_followed() {
    in_root("a_7_a_symlink_to_a_directory_is_followed", || {
        write(&[("/from/var/lib/x/state", "new"), ("/from/home/alice/file", "new"), ("/persist/lib/x/state", "old")]);
        fs::create_dir_all("/persist/home").unwrap();
        set_mode("/persist/home", 0o750);
        link("/persist/lib", "/var/lib");
        link("persist/home", "/home");
        assert_eq!(copy_all(), [""; 0]);
        assert_eq!((&*read("/persist/lib/x/state"), &*read("/persist/home/alice/file")), ("new", "new"));
        assert_eq!(fs::read_link("/var/lib").unwrap(), Path::new("/persist/lib"));
        assert_eq!(fs::read_link("/home").unwrap(), Path::new("persist/home"));
        assert_eq!(mode("/persist/home"), 0o750);
    });
}

#[test]
fn a_7_nothing_is_written_into_the_store() {
    in_root("a_7_nothing_is_written_into_the_store", || {
        Filesystem::tmpfs(&[]).mount(Path::new("/nix/store")).unwrap();
        write(&[
            ("/nix/store/etc/nix/nix.conf", "of the system"),
            ("/nix/store/etc/nix/registry.json", ""),
            ("/nix/store/units/a.service", "of the system"),
            ("/nix/store/new-etc/gone/left", ""),
            ("/from/etc/nix/machines", "of the host"),
            ("/from/etc/nix/nix.conf", "of the host"),
            ("/from/etc/systemd/system/x.service", "of the host"),
            ("/from/etc/gone/x", "of the host"),
            ("/from/etc/relative/x", "of the host"),
            ("/from/etc/lost/x", "of the host"),
        ]);
        link("/nix/store/units", "/nix/store/etc/systemd/system");
        // As activation makes them, and an overlay for /etc.
        link("/nix/store/etc", "/etc/static");
        link("/etc/static/nix", "/etc/nix");
        link("/nix/store/etc/systemd", "/etc/systemd");
        link("/nix/store/of-an-earlier-boot/lost", "/etc/lost");
        link("static/nix", "/etc/relative");
        // The link of the earlier boot leads nowhere, and the system of this boot has the directory.
        link("/etc/static/gone", "/etc/gone");
        link("/nix/store/new-etc", "/nix/store/system/etc");
        fs::create_dir_all("/nix/store/new-etc/nix").unwrap();
        symlink("../../etc/nix/registry.json", "/nix/store/new-etc/nix/registry.json").unwrap();
        let before = listing("/nix/store");

        assert_eq!(copy_for(Some("/nix/store/system")), [""; 0]);
        assert_eq!(listing("/nix/store"), before);
        assert_eq!((&*read("/etc/nix/machines"), &*read("/etc/nix/nix.conf")), ("of the host", "of the host"));
        assert_eq!(fs::read_link("/etc/nix/registry.json").unwrap(), Path::new("/etc/./static/nix/registry.json"));
        assert_eq!(read("/etc/systemd/system/x.service"), "of the host");
        assert_eq!(read("/etc/systemd/system/a.service"), "of the system");
        assert_eq!((&*read("/etc/relative/x"), &*read("/etc/relative/nix.conf")), ("of the host", "of the system"));
        assert_eq!((&*read("/etc/gone/x"), &*read("/etc/lost/x")), ("of the host", "of the host"));
        assert_eq!(fs::read_link("/etc/gone/left").unwrap(), Path::new("/etc/./static/gone/left"));
        assert!(
            ["/etc/nix", "/etc/systemd", "/etc/systemd/system", "/etc/gone"].iter().all(|path| mode(path) == 0o755)
        );
        assert!(!listing("/etc").iter().any(|path| path.contains(".firn-init")), "{:?}", listing("/etc"));
        // The next boot finds directories.
        let after = listing("/etc");
        assert_eq!((copy_for(Some("/nix/store/system")), listing("/etc")), (vec![], after));
    });
}

#[test]
fn a_7_an_overlay_for_etc_takes_files() {
    in_namespaces_of_root(module_path!(), "a_7_an_overlay_for_etc_takes_files", || {
        let root = tempfile::tempdir().unwrap();
        enter_initramfs(root.path(), &[]);
        Filesystem::tmpfs(&[]).mount(Path::new("/nix/store")).unwrap();
        write(&[
            ("/nix/store/units/a.service", "of the system"),
            ("/lower/ssh/moduli", "of the system"),
            ("/from/etc/ssh/key", "secret"),
            ("/from/etc/systemd/system/x.service", "of the host"),
        ]);
        link("/nix/store/units", "/lower/systemd/system");
        link("/nix/store/units", "/lower/ssh/key");
        for directory in ["/upper", "/work", "/etc"] {
            fs::create_dir(directory).unwrap();
        }
        let layers = [("lowerdir", "/lower"), ("upperdir", "/upper"), ("workdir", "/work")];
        let options = [&[("redirect_dir", "on"), ("metacopy", "on")], layers.as_slice()].concat();
        let etc = Filesystem { kind: "overlay", source: "overlay", options: &options, ..Filesystem::tmpfs(&[]) };
        etc.mount(Path::new("/etc")).unwrap();
        let before = listing("/nix/store");

        assert_eq!(copy_all(), [""; 0]);
        assert_eq!(listing("/nix/store"), before);
        assert_eq!((&*read("/etc/ssh/key"), &*read("/etc/ssh/moduli")), ("secret", "of the system"));
        assert_eq!(read("/etc/systemd/system/x.service"), "of the host");
        assert_eq!(read("/etc/systemd/system/a.service"), "of the system");
        assert_eq!(fs::read_link("/lower/systemd/system").unwrap(), Path::new("/nix/store/units"));
    });
}

#[test]
fn a_7_directories_of_the_builder_are_made_only_for_files() {
    in_root("a_7_directories_of_the_builder_are_made_only_for_files", || {
        for directory in FILE_DIRECTORIES {
            fs::create_dir(format!("/from{directory}")).unwrap();
        }
        assert_eq!(copy_all(), [""; 0]);
        assert!(FILE_DIRECTORIES.iter().all(|directory| !Path::new(directory).exists()));
        // As iPXE adds it. A directory of the administrator arrives empty.
        write(&[("/from/etc/machine-id", "")]);
        fs::create_dir_all("/from/srv/data").unwrap();
        fs::create_dir_all("/from/var/lib/data").unwrap();
        assert_eq!(copy_all(), [""; 0]);
        assert_eq!(listing("/etc"), ["/etc/machine-id "]);
        assert!(Path::new("/srv/data").is_dir() && Path::new("/var/lib/data").is_dir() && !Path::new("/root").exists());
    });
}

#[test]
fn a_7_deep_directories_are_copied() {
    in_root("a_7_deep_directories_are_copied", || {
        // The kernel unpacks at most 2,043 levels. Their path is longer than PATH_MAX as soon as names have three bytes.
        let levels = 2043;
        let mut directory = open(CWD, c"/from", OFlags::DIRECTORY).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&directory, "abc", Mode::RWXU).unwrap();
            directory = open(directory.as_fd(), c"abc", DIRECTORY).unwrap();
        }
        rustix::fs::symlinkat("target", &directory, "link").unwrap();
        // The stack of process 1.
        let stack = std::thread::Builder::new().stack_size(8 << 20);
        assert_eq!(stack.spawn(copy_all).unwrap().join().unwrap(), [""; 0]);
        let mut directory = open(CWD, c"/", DIRECTORY).unwrap();
        for _ in 0..levels {
            directory = open(directory.as_fd(), c"abc", DIRECTORY).unwrap();
        }
        statat(&directory, "link", AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert!(getrlimit(Resource::Nofile).current.is_none_or(|limit| limit != OPEN_FILES));
    });
}
