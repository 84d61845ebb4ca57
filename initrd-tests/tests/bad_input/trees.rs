//! `firn verify` on everything that is made from a build.

use crate::fake::Fake;
use crate::shell::{bash, succeeds};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

/// Runs a script that needs no system.
fn run(directory: &Path, script: &str) -> Output {
    bash(directory, Path::new("/nonexistent"), script).output().unwrap()
}

/// Checks how `firn verify` ends, and that it prints some words.
fn verified(directory: &Path, tree: &str, code: i32, words: &[&str]) {
    let output = run(directory, &format!("firn verify {tree}"));
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{tree}: {said}");
    for word in words {
        assert!(said.contains(word), "{tree}: no {word:?} in {said}");
    }
}

/// Changes a field of a manifest, and returns the text that it had before.
fn changed(tree: &Path, field: &str, value: Value) -> Vec<u8> {
    let path = tree.join("manifest.json");
    let before = fs::read(&path).unwrap();
    let mut manifest: Value = serde_json::from_slice(&before).unwrap();
    *manifest.pointer_mut(field).unwrap() = value;
    fs::write(path, manifest.to_string()).unwrap();
    before
}

/// A directory with a build and all trees, which are no links to it.
fn trees() -> tempfile::TempDir {
    let work = tempfile::tempdir().unwrap();
    let script = "
        firn build $system --out build --firn-init $FIRN_INIT --quiet
        firn ipxe build --out ipxe --quiet
        firn ipxe build --out split --split --quiet
        firn kexec build --out kexec --quiet
        firn tarball build --out tarball --prefix unpacked --quiet
        tar --extract --zstd --file tarball
        for tree in ipxe split kexec; do cp -r $tree copy; rm -r $tree; mv copy $tree; done";
    succeeds(bash(work.path(), &Fake::new().in_store(), script));
    work
}

#[test]
fn c_10_a_changed_file_of_a_tree_is_found() {
    let work = trees();
    for (tree, files) in [
        ("build", &["bzImage", "initrd", "netboot.ipxe", "nix-store.squashfs"][..]),
        ("ipxe", &["bzImage", "initrd", "netboot.ipxe"]),
        ("split", &["bzImage", "initrd", "netboot.ipxe", "nix-store.squashfs"]),
        ("kexec", &["bzImage", "initrd.gz", "kexec-boot"]),
        ("unpacked", &["bzImage", "initrd.gz", "kexec-boot"]),
    ] {
        verified(work.path(), tree, 0, &["bzImage: OK", "the store image that the ramdisk's plan names: OK"]);
        for name in files {
            let path = work.path().join(tree).join(name);
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let place = file.metadata().unwrap().len() / 2;
            let mut byte = [0];
            file.read_exact_at(&mut byte, place).unwrap();
            file.write_all_at(&[byte[0] ^ 1], place).unwrap();
            verified(work.path(), tree, 1, &[&format!("{name}: its SHA-256 is "), "differs from its build"]);
            file.write_all_at(&byte, place).unwrap();
        }
        verified(work.path(), tree, 0, &[]);
    }
    // A file that the manifest does not list is compared with nothing.
    fs::write(work.path().join("kexec/netboot.ipxe"), "of another command").unwrap();
    verified(work.path(), "kexec", 1, &["netboot.ipxe: manifest.json does not list it"]);
    fs::remove_file(work.path().join("ipxe/bzImage")).unwrap();
    run(work.path(), "mkfifo ipxe/bzImage");
    verified(work.path(), "ipxe", 1, &["bzImage: it is no regular file"]);
    fs::remove_file(work.path().join("split/initrd")).unwrap();
    verified(
        work.path(),
        "split",
        1,
        &["initrd: opening it: No such file", "names: they were not compared, because the ramdisk"],
    );
    fs::write(work.path().join("split/manifest.json"), "{}").unwrap();
    verified(work.path(), "split", 1, &["split/manifest.json lists no files; build the system again"]);
    let inspected = run(work.path(), "firn inspect split");
    assert!(!inspected.status.success() && inspected.stderr.ends_with(b"lists no files; build the system again\n"));
}

#[test]
fn c_10_a_manifest_that_differs_from_the_ramdisk_is_found() {
    let work = trees();
    for (tree, field, value, expected) in [
        ("build", "/init", json!("/nix/store/x/init"), "manifest.json says /nix/store/x/init"),
        ("kexec", "/init", json!("/nix/store/x/init"), "manifest.json says /nix/store/x/init"),
        ("ipxe", "/cmdline", json!("quiet"), "the init of its command line is  and manifest.json says /nix/store/"),
        ("build", "/modules", json!(["/lib/x.ko"]), "and manifest.json says /lib/x.ko"),
        ("split", "/images/0/path", json!("/other"), "the plan names no store image /other, and manifest.json does"),
        ("build", "/before_images", json!(0), "the store images do not begin at byte 0"),
        ("build", "/before_images", json!(4), "the store images do not begin at byte 4"),
        ("build", "/before_images", json!(u64::MAX), "the store images do not begin at byte 18446744073709551615"),
    ] {
        let right = changed(&work.path().join(tree), field, value);
        verified(work.path(), tree, 1, &[expected]);
        fs::write(work.path().join(tree).join("manifest.json"), right).unwrap();
    }
    for (tree, name) in
        [("build", "nix-store-2.squashfs"), ("ipxe", "nix-store.squashfs"), ("kexec", "nix-store.erofs")]
    {
        fs::write(work.path().join(tree).join(name), "stray").unwrap();
        verified(work.path(), tree, 1, &[&format!("{name}: manifest.json does not list it")]);
    }
}

#[test]
fn c_3_a_manifest_that_names_a_file_twice_changes_no_tree() {
    let work = trees();
    let build = work.path().join("build");
    for name in ["initrd", "bzImage", "netboot.ipxe", "manifest.json"] {
        let right = changed(&build, "/images/0/file", json!(name));
        let error = String::from_utf8(run(work.path(), "firn ipxe build --out split --split").stderr).unwrap();
        assert!(error.contains(&format!("the store image {name} has the name of another file")), "{error}");
        verified(work.path(), "split", 0, &[]);
        fs::write(build.join("manifest.json"), right).unwrap();
    }
}

#[test]
fn c_10_a_tree_without_a_manifest_is_not_called_whole() {
    let work = trees();
    for tree in ["ipxe", "split", "kexec", "unpacked"] {
        fs::remove_file(work.path().join(tree).join("manifest.json")).unwrap();
        let words = ["NOT VERIFIED: there is no manifest.json", "make it again with firn ipxe or firn kexec"];
        verified(work.path(), tree, 1, &words);
        verified(work.path(), &format!("{tree} --quiet"), 1, &words);
    }
}

#[test]
fn c_10_things_that_verify_does_not_take_and_trees_as_input() {
    let work = trees();
    fs::write(work.path().join("nixos.efi"), "MZ").unwrap();
    verified(work.path(), "nixos.efi", 1, &["nixos.efi is a file; verify needs a directory", "by sha256sum"]);
    for (command, tree) in [
        ("kexec split --out out", "ipxe"),
        ("ipxe kexec --out out", "kexec"),
        ("tarball ipxe --out out", "ipxe"),
        ("uki unpacked --out out", "kexec"),
        ("boot split", "ipxe"),
    ] {
        let output = run(work.path(), &format!("firn {command}"));
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!("was made by `firn {tree}` from a build; give the directory of the build");
        assert!(output.status.code() == Some(1) && said.contains(&expected), "{command}: {said}");
    }
    // The other readers take them.
    for command in ["inspect kexec", "inspect unpacked", "diff build split", "diff kexec unpacked"] {
        let output = run(work.path(), &format!("firn {command}"));
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
