//! Store paths that are left out although something points to them.

use crate::attempt::{options, refused};
use crate::fake::Fake;
use crate::store_paths::{closure_info, with_kernel};
use firn::build::build;
use firn::build::options::BuildOptions;
use firn::build::system::closure::StoreSelection;
use firn::host::progress::Progress;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A store path with one file.
fn other(file: &str, contents: &str) -> PathBuf {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join(file).parent().unwrap()).unwrap();
    fs::write(directory.path().join(file), contents).unwrap();
    let added = Command::new("nix-store").arg("--add").arg(directory.path()).output().unwrap();
    PathBuf::from(String::from_utf8(added.stdout).unwrap().trim())
}

#[test]
fn c_1_a_path_that_the_system_needs_is_not_left_out() {
    let out = tempfile::tempdir().unwrap();
    let check = |system: &Path, info: &TempDir, selection: StoreSelection, words: &[&str]| {
        let selection = StoreSelection { closure_info: Some(info.path().into()), ..selection };
        refused(&BuildOptions { selection, ..options(system, out.path()) }, words);
    };
    let exclude = |path: &Path| StoreSelection { excluded: vec![path.into()], ..StoreSelection::default() };
    let text = |path: &Path| path.to_str().unwrap().to_owned();

    // The toplevel, the interpreter, and the loader that the interpreter refers to.
    let loader = other("lib/ld.so", "loader of c_1");
    let shell = other("bin/bash", &format!("shell of c_1: {}", loader.display()));
    // And the programs that init uses.
    let tools = other("bin/mount", "tools of c_1");
    let fake = Fake::new();
    fake.file("init", &format!("#!{}/bin/bash\nPATH={}/bin:/x\n", shell.display(), tools.display()));
    let system = fake.in_store();
    let info = closure_info(&[(&system, &[&shell, &tools]), (&shell, &[&loader]), (&loader, &[]), (&tools, &[])]);
    check(&system, &info, exclude(&tools), &[&text(&tools), &format!("{}/init points to it", system.display())]);
    check(&system, &info, exclude(&system), &["it is the system itself", "leave out --exclude"]);
    check(&system, &info, exclude(&shell), &[&text(&shell), &format!("{}/init points to it", system.display())]);
    let link = format!("{}/bin/bash points to it", shell.display());
    check(&system, &info, exclude(&loader), &[&text(&loader), &link, "leave out --exclude", "or build"]);

    // A link of the toplevel, and one of a specialisation.
    let etc = other("etc/passwd", "c_1");
    for specialisation in [false, true] {
        let fake = Fake::new();
        symlink(etc.join("etc"), fake.path("etc")).unwrap();
        let mut system = fake.in_store();
        let child = system.clone();
        let mut paths: Vec<(&Path, &[&Path])> = vec![];
        let (of_child, of_parent) = ([&*etc], [&*child]);
        if specialisation {
            let fake = Fake::new();
            fs::create_dir(fake.path("specialisation")).unwrap();
            symlink(&child, fake.path("specialisation/small")).unwrap();
            system = fake.in_store();
            paths.push((&system, &of_parent));
        }
        paths.extend([(&*child, &of_child[..]), (&*etc, &[][..])]);
        let link = format!("{}/etc points to it", child.display());
        check(&system, &closure_info(&paths), exclude(&etc), &[&text(&etc), &link, "leave out --exclude"]);
    }
}

#[test]
fn c_1_a_kernel_with_its_modules_is_not_left_out() {
    let out = tempfile::tempdir().unwrap();
    let (system, kernel) = with_kernel(true);
    let info = closure_info(&[(&system, &[&kernel]), (&kernel, &[])]);
    let selection = || StoreSelection { closure_info: Some(info.path().into()), ..StoreSelection::default() };
    let link = format!("{}/kernel-modules/lib/modules/6.9 points to it", system.display());
    for (selection, way) in [
        (StoreSelection { without_kernel: true, ..selection() }, "leave out --without-kernel, or build"),
        (StoreSelection { excluded: vec![kernel.clone()], ..selection() }, "leave out --exclude"),
    ] {
        refused(&BuildOptions { selection, ..options(&system, out.path()) }, &[kernel.to_str().unwrap(), &link, way]);
    }
    // The kernel is a part of the toplevel.
    let system = Fake::new().in_store();
    let selection = StoreSelection { without_kernel: true, ..StoreSelection::default() };
    refused(
        &BuildOptions { selection, ..options(&system, out.path()) },
        &["it is the system itself", "leave out --without-kernel, or build"],
    );
}

#[test]
fn c_1_a_system_without_its_kernel_is_not_copied_by_nix() {
    let out = tempfile::tempdir().unwrap();
    let (system, kernel) = with_kernel(false);
    let info = closure_info(&[(&system, &[&kernel]), (&kernel, &[])]);
    let selection =
        StoreSelection { closure_info: Some(info.path().into()), without_kernel: true, ..StoreSelection::default() };
    let manifest = build(&BuildOptions { selection, ..options(&system, out.path()) }, Progress::Quiet).unwrap();
    assert_eq!(manifest.store_paths, 1);
    let registration = Command::new("unsquashfs")
        .arg("-cat")
        .arg(out.path().join("nix-store.squashfs"))
        .arg("nix-path-registration")
        .output()
        .unwrap();

    // The store of the booted system, by a real Nix.
    let booted = tempfile::tempdir().unwrap();
    let root = |path: &Path| PathBuf::from(format!("{}{}", booted.path().display(), path.display()));
    fs::create_dir_all(root(Path::new("/nix/store"))).unwrap();
    assert!(Command::new("cp").arg("-a").arg(&system).arg(root(&system)).status().unwrap().success());
    let store = format!("local?root={}", booted.path().display());
    let nix_store = |arguments: &[&str], input: &[u8]| {
        let mut child = Command::new("nix-store")
            .args(arguments)
            .env("NIX_REMOTE", &store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (loaded, error) = nix_store(&["--load-db"], &registration.stdout);
    assert!(loaded, "{error}");
    let (clean, said) = nix_store(&["--verify", "--check-contents"], b"");
    assert!(!clean && said.contains("was modified"), "{said}");
    let target = tempfile::tempdir().unwrap();
    let copied = Command::new("nix")
        .args(["--extra-experimental-features", "nix-command", "copy", "--no-check-sigs", "--from", &store, "--to"])
        .arg(format!("local?root={}", target.path().display()))
        .arg(&system)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&copied.stderr);
    assert!(!copied.status.success() && said.contains("hash mismatch") && said.contains("1zzzz"), "{said}");
    let (exported, said) = nix_store(&["--export", system.to_str().unwrap()], b"");
    assert!(!exported && said.contains("has changed"), "{said}");

    // What nixos-install --system does, with the store of the booted system as its source.
    let profile = target.path().join("nix/var/nix/profiles/system");
    fs::create_dir_all(profile.parent().unwrap()).unwrap();
    let installed = Command::new("nix-env")
        .args(["--store", target.path().to_str().unwrap(), "--option", "substituters", &format!("{store}&trusted=1")])
        .args(["--option", "require-sigs", "false", "--profile"])
        .arg(&profile)
        .arg("--set")
        .arg(&system)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&installed.stderr);
    let refused = !installed.status.success() && said.contains("hash mismatch") && !profile.exists();
    assert!(refused, "{said}");

    // A root keeps the system.
    let roots = booted.path().join("nix/var/nix/gcroots");
    fs::create_dir_all(&roots).unwrap();
    symlink(&system, roots.join("booted")).unwrap();
    let (clean, said) = nix_store(&["--verify"], b"");
    assert!(clean, "{said}");
    let (collected, said) = nix_store(&["--gc"], b"");
    assert!(collected && root(&system).join("init").exists(), "{said}");
    assert!(Command::new("chmod").args(["-R", "u+w"]).arg(booted.path()).status().unwrap().success());
}
