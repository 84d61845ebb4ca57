//! A directory that is not a toplevel, and a toplevel with missing or damaged files.

use crate::attempt::{options, refused};
use crate::fake::Fake;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn without<'a>(fake: &'a Fake, name: &str) -> &'a Fake {
    fs::remove_file(fake.path(name)).unwrap();
    fake
}

#[test]
fn the_toplevel() {
    let out = tempfile::tempdir().unwrap();
    let system = Fake::new().in_store();
    refused(
        &options(Path::new("/nix/store/no-such-system"), out.path()),
        &["cannot find", "no-such-system", "No such file"],
    );
    refused(&options(Path::new("/etc"), out.path()), &["/etc is not in the Nix store"]);
    refused(&options(Path::new("/nix/store"), out.path()), &["the whole store"]);
    refused(
        &options(&system.join("init"), out.path()),
        &["lies inside a store path; give the toplevel", system.to_str().unwrap()],
    );

    let fake = Fake::new();
    let unknown = PathBuf::from(format!("/nix/store/{}-not-registered", "0".repeat(32)));
    assert!(Command::new("cp").arg("-r").arg(fake.path("")).arg(&unknown).status().unwrap().success());
    refused(&options(&unknown, out.path()), &["Nix does not know the closure", "is not valid", "nix copy) first"]);
    fs::remove_dir_all(unknown).unwrap();
}

#[test]
fn what_is_in_the_toplevel() {
    let out = tempfile::tempdir().unwrap();
    let built = |fake: &Fake, words: &[&str]| refused(&options(&fake.in_store(), out.path()), words);
    built(without(&Fake::new(), "init"), &["has no init: it is no NixOS system"]);
    built(without(&Fake::new(), "bzImage"), &["/kernel leads to bzImage, which is missing; repair the store"]);
    built(Fake::new().file("boot.json", "{"), &["not a bootspec of version 1"]);
    let release = "kernel-modules/lib/modules/6.9";
    built(
        Fake::new().file(&format!("{release}/modules.dep"), "overlay.ko:\n"),
        &["the kernel 6.9 has no squashfs, neither as a module nor built in"],
    );
    built(without(&Fake::new(), &format!("{release}/squashfs.ko")), &["reading the module", "squashfs.ko"]);
    built(
        without(&Fake::new(), &format!("{release}/modules.builtin")),
        &["modules.builtin, which comes from the build of the kernel"],
    );

    let spec = |kernel: &str| {
        format!(
            r#"{{"org.nixos.bootspec.v1": {{"init": "/x/init", "kernel": "{kernel}", "kernelParams": [], "label": "x",
                "system": "{}-linux", "toplevel": "/x"}}}}"#,
            env::consts::ARCH
        )
    };
    built(Fake::new().file("boot.json", &spec("/x/bzImage")), &["has no kernel: /x/bzImage is missing; build it with"]);
    built(Fake::new().file("boot.json", &spec("/etc/passwd")), &["names the init /x/init, which is not its own"]);
}

#[test]
fn how_a_system_wants_to_be_started() {
    let out = tempfile::tempdir().unwrap();
    let built = |fake: &Fake, words: &[&str]| refused(&options(&fake.in_store(), out.path()), words);
    let program = Fake::new();
    program.file("init", "\x7fELF");
    built(&program, &["no init script, no prepare-root", "no extension org.nixos.nixos-init.v1"]);

    built(
        program.file("boot.json", &spec(r#"{"etc_metadata_image": 1}"#)),
        &["boot.json", "etc_metadata_image is not a string"],
    );
}

/// A `boot.json` with this extension for nixos-init.
fn spec(extension: &str) -> String {
    format!(
        r#"{{"org.nixos.bootspec.v1": {{"init": "/x/init", "kernel": "/etc/passwd", "kernelParams": [], "label": "x",
            "system": "{}-linux", "toplevel": "/x"}}, "org.nixos.nixos-init.v1": {extension}}}"#,
        env::consts::ARCH
    )
}

#[test]
fn b_3_kernels_for_an_overlay_for_etc() {
    let out = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    fake.file("init", "\x7fELF");
    fake.file("boot.json", &spec(r#"{"etc_metadata_image": "/nix/store/x", "etc_basedir": "/nix/store/y"}"#));
    let mut release = "6.9";
    let mut refused_with = |other, words: &[&str]| {
        let path = |release: &str| fake.path(&format!("kernel-modules/lib/modules/{release}"));
        fs::rename(path(release), path(other)).unwrap();
        release = other;
        refused(&options(&fake.in_store(), out.path()), words);
    };
    let too_old = "an overlay for /etc, whose image only Linux 5.15 or newer can read, and its kernel is ";
    for other in ["5.10.223", "5.14"] {
        refused_with(other, &[&(too_old.to_owned() + other), "overlay.enable = false"]);
    }
    // The next fault of this system.
    for other in ["5.15", "6.1", "6.5", "6.12"] {
        refused_with(other, &["names the init /x/init"]);
    }
    fake.file("prepare-root", "");
    refused_with("5.4", &[too_old]);
}
