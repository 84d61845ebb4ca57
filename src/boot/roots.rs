//! The garbage collector roots of the store paths that were packed by name: a collection must not take what somebody put into the image
//! on purpose.
//!
//! Nix searches `/nix/var/nix/gcroots` for symlinks to store paths. It goes into directories, but not through a symlink to a directory, so
//! there is a link for each path in a real directory (`LocalStore::findRoots`, src/libstore/gc.cc).

use crate::boot::kernel::file;
use crate::contract::plan::REGISTRATION;
use crate::formats::registration;
use anyhow::{Context, Result};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::Path;

/// The directory of the roots. Each boot makes it anew.
const DIRECTORY: &str = "/nix/var/nix/gcroots/firn";

/// Makes the roots of the store paths `named`, in the root of this process, in place of those of an earlier boot. Without names, the
/// roots are the paths of the images' registration that no other path refers to.
///
/// # Errors
///
/// A registration that cannot be read, or a root that cannot be made or deleted.
pub fn set(named: &[String]) -> Result<()> {
    let registered = if named.is_empty() {
        let path = format!("/nix/store/{REGISTRATION}");
        let text = match file::read_to_string(&path) {
            // Of an image that another tool made. Registering it fails with the reason.
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other.with_context(|| format!("reading {path}"))?,
        };
        registration::unreferenced(&text)
    } else {
        Vec::new()
    };
    make(named.iter().chain(&registered)).with_context(|| format!("making the garbage collector roots in {DIRECTORY}"))
}

fn make<'a>(roots: impl Iterator<Item = &'a String>) -> io::Result<()> {
    // Of an earlier boot: the store has only the paths of this one.
    file::remove(Path::new(DIRECTORY))?;
    fs::create_dir_all(DIRECTORY)?;
    for root in roots {
        symlink(root, format!("{DIRECTORY}/{}", root.rsplit('/').next().unwrap_or(root)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernel::mount::make_directory;
    use crate::testing::{enter_initramfs, in_namespaces, listing};

    #[test]
    fn b_5_the_roots_of_an_earlier_boot_are_replaced() {
        in_namespaces(module_path!(), "b_5_the_roots_of_an_earlier_boot_are_replaced", || {
            let work = tempfile::tempdir().unwrap();
            enter_initramfs(work.path(), &[]);
            make_directory("/nix/var/nix/gcroots").unwrap();
            make_directory("/nix/store").unwrap();
            let set = |roots: &[&str]| {
                set(&roots.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
                let is = |root: &&str| format!("{DIRECTORY}/{} -> {root}", root.rsplit('/').next().unwrap());
                assert_eq!(listing(DIRECTORY), roots.iter().map(is).collect::<Vec<_>>());
            };
            set(&["/nix/store/a-1.0", "/nix/store/b"]);
            set(&["/nix/store/a-1.0", "/nix/store/b"]);
            set(&["/nix/store/b", "/nix/store/c"]);
            // A person deletes a root. The next boot has the path again, and the root.
            fs::remove_file(format!("{DIRECTORY}/b")).unwrap();
            set(&["/nix/store/b", "/nix/store/c"]);
            // A symlink of that name is replaced, and not followed.
            make_directory("/home").unwrap();
            symlink("/nix/store/mine", "/home/mine").unwrap();
            fs::remove_dir_all(DIRECTORY).unwrap();
            symlink("/home", DIRECTORY).unwrap();
            set(&["/nix/store/b"]);
            assert_eq!(listing("/home"), ["/home/mine -> /nix/store/mine"]);
            fs::remove_dir_all(DIRECTORY).unwrap();
            fs::write(DIRECTORY, "").unwrap();
            set(&["/nix/store/b"]);
        });
    }

    #[test]
    fn b_5_without_a_plan_the_registration_tells_the_roots() {
        in_namespaces(module_path!(), "b_5_without_a_plan_the_registration_tells_the_roots", || {
            let work = tempfile::tempdir().unwrap();
            enter_initramfs(work.path(), &[]);
            make_directory("/nix/var/nix/gcroots").unwrap();
            make_directory("/nix/store").unwrap();
            set(&[]).unwrap();
            assert_eq!(listing(DIRECTORY), [""; 0]);
            let text = "/nix/store/a\nsha256:1\n1\n\n0\n/nix/store/b\nsha256:1\n1\n\n2\n/nix/store/a\n/nix/store/b\n";
            fs::write("/nix/store/nix-path-registration", text).unwrap();
            set(&[]).unwrap();
            assert_eq!(listing(DIRECTORY), [format!("{DIRECTORY}/b -> /nix/store/b")]);
        });
    }
}
