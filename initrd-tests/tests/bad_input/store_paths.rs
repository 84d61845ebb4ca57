//! Store paths with references, for builds of small systems.

use crate::fake::Fake;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A directory with a closure-info: the paths of `nix-store --add` have no references.
pub fn closure_info(paths: &[(&Path, &[&Path])]) -> TempDir {
    let info = tempfile::tempdir().unwrap();
    let (mut registration, mut list) = (String::new(), String::new());
    for (path, references) in paths {
        let dump = Command::new("nix-store").arg("--dump-db").arg(path).output().unwrap().stdout;
        let dump = String::from_utf8(dump).unwrap();
        writeln!(registration, "{}{}", dump.strip_suffix("0\n").unwrap(), references.len()).unwrap();
        references.iter().for_each(|path| writeln!(registration, "{}", path.display()).unwrap());
        writeln!(list, "{}", path.display()).unwrap();
    }
    fs::write(info.path().join("registration"), registration).unwrap();
    fs::write(info.path().join("store-paths"), list).unwrap();
    info
}

/// A system with its kernel in a store path of its own. With `modules` this path has the modules, too.
pub fn with_kernel(modules: bool) -> (PathBuf, PathBuf) {
    let (fake, kernel) = (Fake::new(), tempfile::tempdir().unwrap());
    fs::write(kernel.path().join("bzImage"), format!("kernel of c_1 {modules}")).unwrap();
    let release = "lib/modules/6.9";
    if modules {
        fs::create_dir_all(kernel.path().join("lib/modules")).unwrap();
        fs::rename(fake.path("kernel-modules").join(release), kernel.path().join(release)).unwrap();
    }
    let added = Command::new("nix-store").arg("--add").arg(kernel.path()).output().unwrap();
    let kernel = PathBuf::from(String::from_utf8(added.stdout).unwrap().trim());
    if modules {
        symlink(kernel.join(release), fake.path("kernel-modules").join(release)).unwrap();
    }
    fs::remove_file(fake.path("kernel")).unwrap();
    symlink(kernel.join("bzImage"), fake.path("kernel")).unwrap();
    (fake.in_store(), kernel)
}
