//! Files of a host at paths that the system has, too, and an activation that does what NixOS' does.

use super::*;
use std::fs::{read_link, rename};

const TOPLEVEL: &str = "/nix/store/system";

/// Copies the files below `/from` for a system, whose files in `/etc` are links to these paths.
fn copy_to_system(links: &[(&str, &str)]) -> Vec<String> {
    for (path, target) in links {
        link(target, &format!("/nix/store/etc/etc/{path}"));
    }
    link("/nix/store/etc/etc", "/nix/store/system/etc");
    copy_for(Some(TOPLEVEL))
}

/// Does for the directory `below` of the system's etc what NixOS' activation does (nixpkgs, `nixos/modules/system/etc/setup-etc.pl`).
/// Returns the paths that it could not replace.
fn activate(below: &str) -> Vec<String> {
    let mut refused = Vec::new();
    if below.is_empty() {
        remove_obsolete("/etc");
        link("/nix/store/etc/etc", "/etc/static.tmp");
        rename("/etc/static.tmp", "/etc/static").unwrap();
    }
    let mut entries: Vec<_> = fs::read_dir(format!("/etc/static{below}")).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{below}/{}", entry.file_name().to_str().unwrap());
        let target = format!("/etc{name}");
        fs::create_dir_all(Path::new(&target).parent().unwrap()).unwrap();
        if entry.file_type().unwrap().is_dir() {
            refused.extend(activate(&name));
        } else if entry.file_type().unwrap().is_symlink() {
            if Path::new(&target).is_dir() && is_static(&target) && !Path::new(&target).is_symlink() {
                fs::remove_dir_all(&target).unwrap();
            }
            let new = format!("{target}.tmp");
            if Path::new(&format!("/etc/static{name}.mode")).exists() {
                fs::copy(format!("/etc/static{name}"), &new).unwrap();
            } else {
                link(&format!("/etc/static{name}"), &new);
            }
            if rename(&new, &target).is_err() {
                fs::remove_file(&new).unwrap();
                refused.push(target);
            }
        }
    }
    if below.is_empty() {
        let copied = fs::read_to_string("/etc/.clean").unwrap_or_default();
        for old in copied.lines().filter(|name| fs::symlink_metadata(format!("/etc/static/{name}")).is_err()) {
            if fs::remove_file(format!("/etc/{old}")).is_err() {
                refused.push(format!("/etc/{old}"));
            }
        }
    }
    refused
}

fn is_static(path: &str) -> bool {
    match read_link(path) {
        Ok(target) => target.to_str().unwrap().starts_with("/etc/static"),
        Err(_) => {
            Path::new(path).is_dir()
                && fs::read_dir(path).unwrap().all(|entry| is_static(entry.unwrap().path().to_str().unwrap()))
        }
    }
}

/// Removes the links of an earlier system. A path of this system that is no symlink counts as missing.
fn remove_obsolete(directory: &str) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path().to_str().unwrap().to_owned();
        if entry.file_type().unwrap().is_dir() {
            remove_obsolete(&path);
        } else if read_link(&path).is_ok_and(|target| target.to_str().unwrap().starts_with("/etc/static"))
            && !Path::new(&path.replacen("/etc", "/nix/store/etc/etc", 1)).is_symlink()
        {
            fs::remove_file(&path).unwrap();
        }
    }
}

fn mounts_on_etc() -> usize {
    read("/proc/self/mountinfo").lines().filter(|line| line.contains(" /etc/")).count()
}

fn in_root_with_proc(test: &str, body: impl FnOnce()) {
    in_root(test, || {
        fs::create_dir("/proc").unwrap();
        sys_mount::Mount::builder().fstype("proc").mount("proc", "/proc").unwrap();
        body();
    });
}

#[test]
fn b_1_a_file_of_the_host_stays_where_activation_puts_one_of_the_system() {
    in_root_with_proc("of_system::b_1_a_file_of_the_host_stays_where_activation_puts_one_of_the_system", || {
        write(&[
            ("/nix/store/text", "of the system"),
            ("/from/etc/hostname", "of the host"),
            ("/from/etc/nix/nix.conf", "of the host"),
            ("/from/etc/nix/machines", "of the host"),
            ("/from/etc/copied", "of the host"),
            ("/from/srv/hostname", "of the host"),
            ("/nix/store/etc/etc/copied.mode", "0440"),
        ]);
        set_mode("/from/etc/hostname", 0o640);
        link("../usr/share/zoneinfo/UTC", "/from/etc/localtime");
        let mut names = vec!["hostname", "nix/nix.conf", "copied", "localtime", "other"];
        rustix::fs::mknodat(CWD, "/from/etc/pipe", FileType::Fifo, Mode::from(0o600), 0).unwrap();
        names.push("pipe");
        let links: Vec<_> = names.iter().map(|name| (*name, "/nix/store/text")).collect();
        assert_eq!(copy_to_system(&links), [""; 0]);
        // Another attempt of the boot, and a second activation of the running system.
        assert_eq!(copy_for(Some(TOPLEVEL)), [""; 0]);
        for _ in 0..2 {
            assert_eq!(
                activate(""),
                ["/etc/copied", "/etc/hostname", "/etc/localtime", "/etc/nix/nix.conf", "/etc/pipe"]
            );
            for path in ["/etc/hostname", "/etc/nix/nix.conf", "/etc/nix/machines", "/etc/copied", "/srv/hostname"] {
                assert_eq!(read(path), "of the host", "{path}");
            }
            assert_eq!(read("/etc/other"), "of the system");
            assert_eq!(read_link("/etc/localtime").unwrap(), Path::new("../usr/share/zoneinfo/UTC"));
            assert!(fs::symlink_metadata("/etc/pipe").unwrap().file_type().is_fifo());
            assert_eq!(mode("/etc/hostname"), 0o640);
        }
        // Only where the system has a file: a program may want to replace the others.
        assert_eq!(mounts_on_etc(), 5);
    });
}

#[test]
fn b_1_a_directory_of_the_host_keeps_the_files_of_the_system() {
    in_root_with_proc("of_system::b_1_a_directory_of_the_host_keeps_the_files_of_the_system", || {
        write(&[
            ("/nix/store/units/a.service", "of the system"),
            ("/nix/store/units/b.service", "of the system"),
            ("/nix/store/units/multi-user.target.wants/a.service", "of the system"),
            ("/from/etc/systemd/system/a.service", "of the host"),
            ("/from/etc/systemd/system/x.service", "of the host"),
            ("/from/etc/systemd/system/multi-user.target.wants/x.service", "of the host"),
        ]);
        let before = listing("/nix/store/units");
        assert_eq!(copy_to_system(&[("systemd/system", "/nix/store/units")]), [""; 0]);
        for _ in 0..2 {
            assert_eq!(activate(""), ["/etc/systemd/system"]);
            for (path, expected) in [
                ("a.service", "of the host"),
                ("x.service", "of the host"),
                ("b.service", "of the system"),
                ("multi-user.target.wants/a.service", "of the system"),
                ("multi-user.target.wants/x.service", "of the host"),
            ] {
                assert_eq!(read(&format!("/etc/systemd/system/{path}")), expected, "{path}");
            }
            // The next boot of a root that stays, with a system that has one more file.
            write(&[("/nix/store/units/new.service", "of the system")]);
            assert_eq!(copy_for(Some(TOPLEVEL)), [""; 0]);
            assert_eq!(read("/etc/systemd/system/new.service"), "of the system");
            fs::remove_file("/nix/store/units/new.service").unwrap();
            fs::remove_file("/etc/systemd/system/new.service").unwrap();
        }
        assert_eq!(listing("/nix/store/units"), before);
        assert_eq!(mounts_on_etc(), 0);
    });
}

#[test]
fn b_1_a_file_that_an_earlier_system_copied_is_not_removed() {
    in_root_with_proc("of_system::b_1_a_file_that_an_earlier_system_copied_is_not_removed", || {
        write(&[
            ("/etc/.clean", "gone\nkey\n"),
            ("/etc/gone", "old"),
            ("/etc/key", "old"),
            ("/from/etc/key", "of the host"),
        ]);
        assert_eq!(copy_to_system(&[("other", "/nix/store/text")]), [""; 0]);
        assert_eq!(activate(""), ["/etc/key"]);
        assert_eq!(read("/etc/key"), "of the host");
        assert!(!Path::new("/etc/gone").exists());
    });
}

#[test]
fn b_1_a_file_in_place_of_a_directory_of_the_system_is_a_warning() {
    in_root_with_proc("of_system::b_1_a_file_in_place_of_a_directory_of_the_system_is_a_warning", || {
        write(&[
            ("/from/etc/nix", "of the host"),
            ("/persist/ssh/key", "of the host"),
            ("/nix/store/text", "of the system"),
        ]);
        link("/persist/lost", "/from/etc/lost");
        // A symlink to a directory is as good as a directory.
        link("/persist/ssh", "/from/etc/ssh");
        let links = ["nix/nix.conf", "lost/x", "ssh/moduli"].map(|path| (path, "/nix/store/text"));
        let mut warnings = copy_to_system(&links);
        warnings.sort();
        let [lost, nix] = warnings.as_slice() else { panic!("{warnings:#?}") };
        assert!(lost.starts_with("Not copying /etc/lost: ") && lost.contains("a directory is in the way"), "{lost}");
        assert!(nix.starts_with("Not copying /etc/nix: ") && nix.contains("a directory is in the way"), "{nix}");
        assert_eq!(activate(""), [""; 0]);
        assert_eq!(
            [read("/etc/ssh/key"), read("/etc/ssh/moduli"), read("/etc/nix/nix.conf")].join(", "),
            "of the host, of the system, of the system"
        );
    });
}

#[test]
fn b_1_an_immutable_etc_takes_a_file_where_it_has_one() {
    in_root_with_proc("of_system::b_1_an_immutable_etc_takes_a_file_where_it_has_one", || {
        write(&[("/from/etc/hostid", "of the host"), ("/from/etc/key", "")]);
        set_mode("/from/etc/hostid", 0o600);
        Filesystem::tmpfs(&[]).mount(Path::new("/etc")).unwrap();
        write(&[("/etc/hostid", "of the system")]);
        rustix::mount::mount_remount("/etc", rustix::mount::MountFlags::RDONLY, "").unwrap();
        for _ in 0..2 {
            let warnings = copy_all();
            assert!(warnings.len() == 1 && warnings[0].starts_with("Not copying /etc/key: Read-only"), "{warnings:#?}");
            assert_eq!((read("/etc/hostid").as_str(), mode("/etc/hostid")), ("of the host", 0o600));
            assert_eq!(mounts_on_etc(), 1);
        }
        // The initramfs is deleted.
        fs::remove_file("/from/etc/hostid").unwrap();
        assert_eq!(read("/etc/hostid"), "of the host");
    });
}
