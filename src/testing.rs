//! Tests of what changes a whole process: mounts, roots, processes. Each runs in a process and in namespaces of its own, with an empty
//! tmpfs for an initramfs.

use std::fs;
use std::path::Path;
use std::process::Command;

/// In the environment of a test that runs in its namespaces.
const INSIDE: &str = "FIRN_TEST_INSIDE";

/// Runs `body` in mount and PID namespaces of its own, with the rights of root there. `test` is the path of the test that calls this,
/// which is run again there.
pub fn in_namespaces(module: &str, test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let (_, module) = module.split_once("::").unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("{module}::{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        // Deleted here: a test that changes its root cannot delete the directories that it made before.
        .env("TMPDIR", temporary.path())
        .output()
        .expect("unshare(1) of util-linux");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// The same for a test that mounts devices and file systems on them, which only root of the machine can do. Another user's test says
/// that it is skipped.
pub fn in_namespaces_of_root(module: &str, test: &str, body: impl FnOnce()) {
    if rustix::process::geteuid().is_root() {
        in_namespaces(module, test, body);
    } else {
        eprintln!("{test} is skipped: it mounts devices and needs root");
    }
}

/// Makes a tmpfs on `directory` the root of this process, with copies of these files and a `/tmp`.
pub fn enter_initramfs(directory: &Path, files: &[(&str, &Path)]) {
    sys_mount::Mount::builder().fstype("tmpfs").mount("tmpfs", directory).unwrap();
    for (to, from) in files {
        let to = directory.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    fs::create_dir_all(directory.join("tmp")).unwrap();
    std::env::set_current_dir(directory).unwrap();
    rustix::process::chroot(".").unwrap();
    std::env::set_current_dir("/").unwrap();
}

/// A squashfs of some files, beside which it is made.
pub fn squashfs(directory: &Path, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
    let (tree, image) = (directory.join(format!("{name}.tree")), directory.join(name));
    for (path, contents) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    let output = Command::new("mksquashfs").arg(&tree).arg(&image).args(["-quiet", "-no-progress"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    image
}

/// Every path below a directory, sorted, with the target of a symlink or the size of a file: to see whether anything changed.
pub fn listing(directory: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path().to_str().unwrap().to_owned();
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                lines.push(format!("{path} -> {}", fs::read_link(&path).unwrap().display()));
            } else if kind.is_dir() {
                lines.push(path.clone() + "/");
                directories.push(path);
            } else {
                lines.push(format!("{path} {}", fs::read_to_string(&path).unwrap_or_default()));
            }
        }
    }
    lines.sort();
    lines
}
