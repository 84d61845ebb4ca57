//! The marks of overlayfs in its layers: opaque directories and whiteouts (Linux, `Documentation/filesystems/overlayfs.rst`).

use crate::boot::kernel::delete::open_directory;
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, RawDir, chmod, chown, fgetxattr, fremovexattr, fstat, mkdir, mknodat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// The attribute of a directory of an upper layer that hides the same directory of the lower layers.
const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// Removes the mark from each directory of `upper` that is now a directory of `lower`, too: overlayfs made it when the directory was
/// new, and now it hides the files of a later `lower`. As the `clear-etc-opaque` of nixpkgs' nixos-init does, this changes nothing else:
/// the files of `upper` stay, also whiteouts, which hide a single file of `lower`. A failure is a warning, because the other directories
/// are right without it. `path`: that of `upper`, for messages.
pub fn clear_opaque(lower: &OwnedFd, upper: &OwnedFd, path: &CStr) {
    compare(lower, upper, path, &mut |path, found| {
        let cleared = found.and_then(|directory| match directory {
            // Asks first: to remove nothing can fail on a file system that is full or read-only.
            Some(directory) => fgetxattr(directory, OPAQUE, &mut [0; 0]).and_then(|_| fremovexattr(directory, OPAQUE)),
            None => Err(Errno::NODATA),
        });
        let path = path.to_string_lossy();
        match cleared {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Ok(()) => log::info!("{path} hides the files of the system no more"),
            Err(errno) => log::warn!(
                "{path} may hide files of the system: {errno}; move it away, or remove its attribute trusted.overlay.opaque with \
                 setfattr, and reboot"
            ),
        }
    });
}

/// Makes the empty directory `path` a layer that hides the names in the layer `data` that the layer `names` lacks. Its directories get
/// the modes and the owners of those in `names`, because the uppermost layer decides. Returns whether there is any name to hide.
///
/// # Errors
///
/// A file that the kernel cannot read, or those of mkdir(2), chown(2), chmod(2) and mknod(2), with the path in the new layer.
pub fn hide(data: &OwnedFd, names: &OwnedFd, path: &CStr) -> Result<bool> {
    let mut hidden = Ok(false);
    let mut visit = |path: &CStr, found: Result<Option<&OwnedFd>, Errno>| {
        let done = found.and_then(|directory| match directory {
            Some(directory) => make_like(directory, path).map(|()| false),
            // A whiteout is a character device with the number 0.
            None => mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).map(|()| true),
        });
        match (&hidden, done) {
            (_, Ok(false)) | (Err(_), _) => {}
            (Ok(_), Ok(true)) => hidden = Ok(true),
            (Ok(_), Err(errno)) => hidden = Err(errno).with_context(|| path.to_string_lossy().into_owned()),
        }
    };
    visit(path, Ok(Some(names)));
    compare(data, names, path, &mut visit);
    hidden
}

/// Makes a directory, unless it is there, with the mode and the owner of another one.
fn make_like(directory: &OwnedFd, path: &CStr) -> Result<(), Errno> {
    match mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let status = fstat(directory)?;
    chown(path, Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)))?;
    chmod(path, Mode::from(status.st_mode & 0o7777))
}

type Visit<'a> = dyn FnMut(&CStr, Result<Option<&OwnedFd>, Errno>) + 'a;

/// Compares the names below two open directories. `visit` gets, for each name of `first`, its path below `path` and the directory in
/// `second` if both are directories, or `None` if `second` lacks the name. It gets the error of a file that cannot be read. No symlink
/// is followed. Two files are open for each level, and the limit for them is the limit for the depth.
fn compare(first: &OwnedFd, second: &OwnedFd, path: &CStr, visit: &mut Visit<'_>) {
    let mut buffer = [const { MaybeUninit::uninit() }; 1024];
    let mut entries = RawDir::new(first, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(errno) => return visit(path, Err(errno)),
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(path) = CString::new([path.to_bytes(), b"/", name.to_bytes()].concat()) else { continue };
        let both = open_directory(second, name).and_then(|second| Ok((open_directory(first, name)?, second)));
        match both {
            Ok((first, second)) => {
                visit(&path, Ok(Some(&second)));
                compare(&first, &second, &path, visit);
            }
            Err(Errno::NOENT) => visit(&path, Ok(None)),
            // One of them is another kind of file.
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => visit(&path, Err(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernel::mount::Filesystem;
    use crate::testing::in_namespaces_of_root;
    use rustix::fs::{OFlags, XattrFlags, lgetxattr, lsetxattr, openat};
    use rustix::mount::{UnmountFlags, unmount};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;

    /// Runs a shell script in the current directory.
    fn shell(script: &str) {
        let output = Command::new("sh").args(["-euc", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn open(path: &str) -> OwnedFd {
        openat(CWD, path, OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn mark(path: &str, name: &str) {
        lsetxattr(path, name, b"y", XattrFlags::empty()).unwrap();
    }

    fn has(path: &str, name: &str) -> bool {
        lgetxattr(path, name, &mut [0; 9]).is_ok()
    }

    fn is_opaque(path: &str) -> bool {
        has(path, OPAQUE.to_str().unwrap())
    }

    fn clear(lower: &str, upper: &str) {
        clear_opaque(&open(lower), &open(upper), c"upper");
    }

    /// Runs `script` in an overlay with these lower layers, and returns its output.
    fn in_overlay(lower: &str, script: &str) -> String {
        let options = [
            ("redirect_dir", "on"),
            ("metacopy", "on"),
            ("lowerdir", lower),
            ("upperdir", "upper"),
            ("workdir", "work"),
        ];
        Filesystem::overlay(&options).mount(Path::new("merged")).unwrap();
        let output = Command::new("sh").args(["-euc", script]).current_dir("merged").output().unwrap();
        unmount("merged", UnmountFlags::empty()).unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a test in an empty tmpfs, whose attributes root of the machine can set.
    fn in_tmpfs(test: &str, body: impl FnOnce()) {
        in_namespaces_of_root(module_path!(), test, || {
            Filesystem::tmpfs(&[]).mount(Path::new("/tmp")).unwrap();
            std::env::set_current_dir("/tmp").unwrap();
            shell("mkdir upper work merged");
            body();
        });
    }

    #[test]
    fn b_3_directories_that_were_made_show_the_files_of_a_later_system() {
        in_tmpfs("b_3_directories_that_were_made_show_the_files_of_a_later_system", || {
            shell(
                "mkdir -p first/again/in later/made/deep later/again/in; touch first/again/in/x first/gone first/hidden",
            );
            shell("touch later/made/system later/made/deep/system later/made/own later/again/in/x later/hidden");
            let changes = "mkdir -p made/deep alone; echo own | tee made/own > made/deep/own; rm hidden
                           rm -r again; mkdir -p again/in; touch alone/own";
            in_overlay("first", changes);
            let list = "find . -type f | sort; cat made/own";
            let before = in_overlay("later", list);
            assert_eq!(before, "./alone/own\n./made/deep/own\n./made/own\nown\n");
            clear("later", "upper");
            let after =
                "./again/in/x\n./alone/own\n./made/deep/own\n./made/deep/system\n./made/own\n./made/system\nown\n";
            assert_eq!(in_overlay("later", list), after);
            // Only those are changed that the system has: a directory of the user alone stays as it is.
            assert!(!is_opaque("upper/made") && !is_opaque("upper/again") && is_opaque("upper/alone"));
        });
    }

    #[test]
    fn b_3_only_the_marks_of_directories_in_the_upper_layer_are_removed() {
        in_tmpfs("b_3_only_the_marks_of_directories_in_the_upper_layer_are_removed", || {
            shell(
                "mkdir -p lower/a/b lower/link lower/file outside/b upper/a; touch upper/file lower/a/file; mkdir upper/a/file",
            );
            symlink("../outside", "upper/link").unwrap();
            symlink("../../outside", "upper/a/b").unwrap();
            for path in ["upper/a", "upper/a/file", "upper/file", "outside", "outside/b", "lower", "lower/a"] {
                mark(path, "trusted.overlay.opaque");
            }
            mark("upper/a", "trusted.overlay.origin");
            mark("upper/a", "trusted.other");
            clear("lower", "upper");
            assert!(!is_opaque("upper/a"));
            for path in ["upper/a/file", "upper/file", "outside", "outside/b", "lower", "lower/a"] {
                assert!(is_opaque(path), "{path}");
            }
            assert!(has("upper/a", "trusted.overlay.origin") && has("upper/a", "trusted.other"));
        });
    }

    #[test]
    fn b_3_marks_that_cannot_be_removed_stay_and_others_are_removed() {
        in_tmpfs("b_3_marks_that_cannot_be_removed_stay_and_others_are_removed", || {
            shell("mkdir -p lower/a lower/b upper/b");
            mark("upper/b", "trusted.overlay.opaque");
            Filesystem::tmpfs(&[]).mount(Path::new("upper/a")).unwrap();
            mark("upper/a", "trusted.overlay.opaque");
            shell("mount -o remount,ro upper/a");
            clear("lower", "upper");
            assert!(is_opaque("upper/a") && !is_opaque("upper/b"));
        });
    }

    #[test]
    fn b_3_trees_that_are_deeper_than_files_can_be_open() {
        in_tmpfs("b_3_trees_that_are_deeper_than_files_can_be_open", || {
            let deep = "d/".repeat(1500);
            fs::create_dir_all(format!("upper/{deep}")).unwrap();
            fs::create_dir_all(format!("lower/{deep}")).unwrap();
            mark("upper/d/d", "trusted.overlay.opaque");
            mark(&format!("upper/{deep}"), "trusted.overlay.opaque");
            shell("mkdir lower/z upper/z");
            mark("upper/z", "trusted.overlay.opaque");
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            let few = rustix::process::Rlimit { current: Some(256), ..limit };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
            clear("lower", "upper");
            assert!(!is_opaque("upper/d/d") && !is_opaque("upper/z") && is_opaque(&format!("upper/{deep}")));
        });
    }

    #[test]
    fn b_3_an_ordinary_layer_with_the_contents_shows_the_names_of_the_image_alone() {
        in_tmpfs("b_3_an_ordinary_layer_with_the_contents_shows_the_names_of_the_image_alone", || {
            let odd = "no\u{a0}space\nand \u{fffd}";
            fs::create_dir_all(format!("data/{odd}/x")).unwrap();
            shell(
                "mkdir -p data/d/extra data/objects names/d hidden; echo in | tee data/d/a data/objects/b data/d/z > data/top",
            );
            // The name is no UTF-8.
            shell(r#"touch data/d/"$(printf '\377')"; mkdir names/top; touch names/d/a names/b"#);
            shell("chmod 2750 names/d; chown 3:4 names/d; chmod 700 names; truncate -s 3 names/d/a names/b");
            for (name, redirect) in [("names/d/a", "/d/a"), ("names/b", "/objects/b")] {
                lsetxattr(name, "trusted.overlay.metacopy", b"", XattrFlags::empty()).unwrap();
                lsetxattr(name, "trusted.overlay.redirect", redirect.as_bytes(), XattrFlags::empty()).unwrap();
            }
            assert!(hide(&open("data"), &open("names"), c"hidden").unwrap());
            let list = "find . -mindepth 1 -printf '%p %m %U:%G %y\n' | sort; cat d/a b";
            let expected = "./b 644 0:0 f\n./d 2750 3:4 d\n./d/a 644 0:0 f\n./top 755 0:0 d\nin\nin\n";
            assert_eq!(in_overlay("hidden:names:data", list), expected);
            assert_eq!(fs::metadata("hidden").unwrap().permissions(), fs::metadata("names").unwrap().permissions());
        });
    }

    #[test]
    fn b_3_no_layer_hides_anything_if_the_image_has_all_names() {
        in_tmpfs("b_3_no_layer_hides_anything_if_the_image_has_all_names", || {
            shell("mkdir -p data/d names/d names/e hidden; touch data/f data/d/f names/f names/d/f names/g");
            assert!(!hide(&open("data"), &open("names"), c"hidden").unwrap());
            shell("touch data/h; rm -r hidden; touch hidden");
            let error = format!("{:#}", hide(&open("data"), &open("names"), c"hidden").unwrap_err());
            assert!(error.starts_with("hidden"), "{error}");
        });
    }
}
