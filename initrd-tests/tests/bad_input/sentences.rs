//! One sentence for each wrong input: the thing, the reason and the next step, each once.

use crate::fake::Fake;
use crate::shell::{bash, succeeds};
use std::fs;
use std::path::Path;

/// Wrong inputs in the directory of a test.
const INPUTS: &str = "
    mkfifo pipe; mkdir info; mkfifo info/registration; mkdir dir nix && : > empty && ln -s /nonexistent dangling && ln -s $system/init inside
    printf '#!/bin/sh\\necho \"error: opening lock file: Permission denied\" >&2; exit 1\\n' > nix/nix-store && chmod +x nix/nix-store
    mkdir broken && echo text > broken/nix-store && chmod +x broken/nix-store
    mkdir without && ln -s /usr/bin/* without && rm -f without/nix-store";

/// Runs each command in a directory with [`INPUTS`]: it fails with one line that has each of the words once.
fn refused(system: &Path, rows: &[(&str, &[&str])]) {
    let work = tempfile::tempdir().unwrap();
    assert!(bash(work.path(), system, INPUTS).status().unwrap().success());
    let mut wrong = Vec::new();
    for (command, words) in rows {
        let build =
            format!("build() {{ firn build $system --quiet --out out --firn-init $FIRN_INIT \"$@\"; }}\n{command}");
        let output = bash(work.path(), system, &build).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let right = output.status.code() == Some(1)
            && said.starts_with("firn: ")
            && said.lines().count() == 1
            && words.iter().all(|word| said.matches(word).count() == 1)
            && !work.path().join("out").exists();
        if !right {
            wrong.push(format!("{command}, {words:?}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const NO_FILE: &str = "No such file or directory";

#[test]
fn c_12_each_wrong_input_gets_one_sentence() {
    let path = "give a store path with --store-content";
    let excluded = "give a store path with --exclude";
    let init = "cargo build --release --bin firn-init";
    let shell = "give a static busybox";
    let info = "--closure-info needs the directory that closureInfo makes";
    let out = "give another directory with --out";
    let ramdisk = "give a ramdisk";
    let built = "give a directory made by `firn build`";
    let image = "give an output of firn image";
    refused(
        &Fake::new().in_store(),
        &[
            ("build --store-content nowhere", &["cannot find nowhere", path, NO_FILE]),
            ("build --store-content dangling", &["dangling leads to /nonexistent", path, NO_FILE]),
            ("build --store-content dir", &["/dir is not in the Nix store", path]),
            ("build --store-content empty", &["/empty is not in the Nix store", path]),
            ("build --store-content inside", &["/init lies inside a store path", path]),
            ("build --store-content /nix/store", &["is the whole store", path]),
            ("build --exclude nowhere", &["cannot find nowhere", excluded, NO_FILE]),
            ("build --exclude $system/", &["cannot be left out: it is the system itself", "leave out --exclude /"]),
            ("build --exclude dir", &["/dir is not in the Nix store", excluded]),
            ("FIRN_INIT=pipe build", &["reading firn-init at pipe", "it is no regular file; copy its contents", init]),
            ("build --rescue-shell pipe", &["reading the rescue shell pipe", "it is no regular file", shell]),
            ("build --closure-info info", &["reading info/registration", "it is no regular file", info]),
            ("build --image pipe", &["pipe is no regular file; copy its contents"]),
            ("build --append pipe", &["pipe is no regular file; copy its contents"]),
            ("firn build dangling --out out", &["dangling leads to", "give the toplevel of a NixOS system", NO_FILE]),
            ("firn build dir --out out", &["/dir is not in", "give the toplevel of a NixOS system"]),
            ("FIRN_INIT=nowhere build", &["reading firn-init at nowhere", init, NO_FILE]),
            ("FIRN_INIT=dir build", &["reading firn-init at dir", init, "Is a directory"]),
            ("FIRN_INIT=empty build", &["empty cannot be PID 1", "not a 64-bit ELF program"]),
            ("build --rescue-shell nowhere", &["the rescue shell nowhere", shell, NO_FILE]),
            ("build --rescue-shell empty", &["empty cannot be the rescue shell", "not a 64-bit ELF program"]),
            ("build --closure-info nowhere", &["reading nowhere/registration", info, NO_FILE]),
            ("build --closure-info empty", &["reading empty/registration", info, "Not a directory"]),
            ("firn image $system --out empty/x --quiet", &["output directory empty", out, "File exists"]),
            ("firn image $system --out /proc/x/y --quiet", &["output directory /proc/x", out, NO_FILE]),
            ("firn ls nowhere", &["opening nowhere", ramdisk, NO_FILE]),
            ("firn cat dir init", &["opening dir/initrd", ramdisk, NO_FILE]),
            ("firn ls empty", &["empty: ", "has only zeros", ramdisk]),
            ("firn ipxe nowhere --out out", &["opening nowhere/manifest.json", built, NO_FILE]),
            ("firn uki empty --out out", &["opening empty/manifest.json", built, "Not a directory"]),
            ("firn verify dir", &["opening dir/manifest.json", built, NO_FILE]),
            ("firn inspect nowhere", &["opening nowhere", "give a", NO_FILE]),
            ("firn ramdisk $system --out out --firn-init $FIRN_INIT --image dir", &["dir is a directory", image]),
            (
                "sed -i 's/error: /\\x1b[31;1merror:\\x1b[0m /' nix/nix-store; PATH=$PWD/nix:$PATH; build",
                &["nix-store --query failed: opening lock file: Permission denied", "run firn as"],
            ),
            ("PATH=$PWD/broken:$PATH; build", &["cannot run the nix-store on the PATH", "--closure-info"]),
            ("PATH=$PWD/without; build", &["there is no nix-store on the PATH", "install Nix", NO_FILE]),
        ],
    );
}

#[test]
fn c_12_systems_without_a_kernel_get_one_sentence() {
    let container = || {
        let fake = Fake::new();
        fs::remove_file(fake.path("kernel")).unwrap();
        fs::remove_dir_all(fake.path("kernel-modules")).unwrap();
        fake
    };
    let words = ["has no kernel", "as a container", "boot.isContainer = false", "boot.kernel.enable = true"];
    refused(&container().in_store(), &[("build", &words)]);
    let spec = format!(
        r#"{{"org.nixos.bootspec.v1": {{"init": "/x/init", "kernel": "/x/bzImage", "kernelParams": [], "label": "x",
            "system": "{}-linux", "toplevel": "/x"}}}}"#,
        std::env::consts::ARCH
    );
    let words = ["has no kernel", "/x/bzImage is missing", "boot.kernel.enable = true"];
    refused(&container().file("boot.json", &spec).in_store(), &[("build", &words)]);
    // A kernel without modules: only boot.json can say that it has none.
    for modules in ["kernel-modules", "kernel-modules/lib/modules"] {
        let fake = Fake::new();
        fs::remove_dir_all(fake.path(modules)).unwrap();
        let words = ["neither a boot.json nor the file kernel-modules/lib/modules", "give the path"];
        refused(&fake.in_store(), &[("build", &words)]);
    }
    let fake = Fake::new();
    fs::remove_file(fake.path("nixos-version")).unwrap();
    refused(&fake.in_store(), &[("build", &["neither a boot.json nor the file nixos-version", "give the path"])]);
}

#[test]
fn c_13_modules_that_the_kernel_does_not_have() {
    let system = Fake::new().in_store();
    let words = ["has no module sun4i-drm", "build without it with --allow-missing-modules"];
    refused(&system, &[("build --module sun4i-drm", &words)]);
    let words = ["has no module aa, bb or squashfz,", "did you mean squashfs for squashfz?", "build without them"];
    refused(&system, &[("build --module aa --module bb --module aa --available-module squashfz", &words)]);
    let work = tempfile::tempdir().unwrap();
    let script = "firn build $system --out out --firn-init $FIRN_INIT --module sun4i-drm --allow-missing-modules 2>&1";
    let output = succeeds(bash(work.path(), &system, script));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("Warning: the kernel has no module sun4i-drm"), "{said}");
}
