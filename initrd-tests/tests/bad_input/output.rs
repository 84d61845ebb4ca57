//! An output directory that cannot be written, and a build that is interrupted.

use crate::attempt::{options, refused};
use crate::fake::Fake;
use firn::build::options::BuildOptions;
use firn::build::ramdisk::segments::SegmentOptions;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::{kexec, uki};
use firn::build::{build, ramdisk};
use firn::host::progress::Progress;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

#[test]
fn a_build_that_is_interrupted() {
    let fake = Fake::new();
    // Data that cannot be compressed: xz needs a minute for it.
    let noise = (0_u64..8 << 20).flat_map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17).to_le_bytes());
    fs::write(fake.path("large"), noise.collect::<Vec<_>>()).unwrap();
    let system = fake.in_store();
    // Cargo builds it for the tests of its package, next to the directory of this test.
    let firn = env::current_exe().unwrap().parent().unwrap().with_file_name("firn");
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("initrd"), "of an earlier build").unwrap();
    let files = || fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for signal in ["-INT", "-TERM", "-HUP"] {
        // The suite may run under nohup(1), whose programs keep on ignoring a hangup.
        let mut build = Command::new("env");
        build.arg("--default-signal=HUP").arg(&firn).arg("build").arg(&system).arg("--out").arg(out.path()).args([
            "--compression",
            "xz",
            "--firn-init",
        ]);
        build.arg(env::var_os("FIRN_INIT").unwrap()).stderr(Stdio::piped());
        let child = build.spawn().unwrap();
        let packing = || files().iter().any(|path| path.join("nix-store.squashfs").exists());
        while !packing() {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.ends_with("interrupted\n"), "{said}");
        assert_eq!(files(), [out.path().join("initrd")]);
    }
    assert_eq!(fs::read_to_string(out.path().join("initrd")).unwrap(), "of an earlier build");
}

#[test]
fn an_output_that_cannot_be_written() {
    let system = Fake::new().in_store();
    let parent = tempfile::tempdir().unwrap();
    File::create(parent.path().join("file")).unwrap();
    let error = format!("{:#}", build(&options(&system, &parent.path().join("file")), Progress::Quiet).unwrap_err());
    assert!(error.contains("making the output directory"), "{error}");
    // Root can write in spite of a mode, so these directories refuse in other ways.
    refused(&options(&system, Path::new("/proc/firn")), &["making the output directory /proc/firn"]);
    let read_only = parent.path().join("read-only");
    fs::create_dir(&read_only).unwrap();
    assert!(
        Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "tmpfs"]).arg(&read_only).status().unwrap().success()
    );
    refused(&options(&system, &read_only), &["read-only; give another directory with --out", "Read-only file system"]);
    assert!(Command::new("umount").arg(&read_only).status().unwrap().success());

    // 8 MiB are enough for the image, but not for the ramdisk as well; 1 MiB is too little for the image.
    let fake = Fake::new();
    fs::write(fake.path("large"), vec![0x5a; 5 << 20]).unwrap();
    let large = fake.in_store();
    for (size, words) in [("1m", ["mksquashfs failed", "No space left"]), ("8m", ["8m/initrd", "No space left"])] {
        let full = parent.path().join(size);
        fs::create_dir(&full).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&full).status();
        assert!(mount.unwrap().success());
        refused(&options(&large, &full), &words);
        assert!(Command::new("umount").arg(&full).status().unwrap().success());
    }
}

#[test]
fn an_output_on_the_name_of_an_input() {
    let (system, out) = (Fake::new().in_store(), tempfile::tempdir().unwrap());
    build(&options(&system, out.path()), Progress::Quiet).unwrap();
    let (initrd, image) = (out.path().join("initrd"), out.path().join("nix-store.squashfs"));
    let of_build = BuildDirectory::open(out.path()).unwrap();
    let uki = uki::UkiOptions::default();
    let segments = || SegmentOptions { before: vec![initrd.clone()], ..SegmentOptions::default() };
    for (result, expected) in [
        (
            build(&options(&system, &system.join("boot")), Progress::Quiet).err(),
            "lies inside of the system to build; give another",
        ),
        (
            build(&BuildOptions { segments: segments(), ..options(&system, out.path()) }, Progress::Quiet).err(),
            "initrd would overwrite",
        ),
        (
            ramdisk(&options(&system, &image), std::slice::from_ref(&image), false, Progress::Quiet).err(),
            "nix-store.squashfs would overwrite",
        ),
        (kexec::tarball(&of_build, &initrd, "", Progress::Quiet).err(), "initrd, which is an input; give another name"),
        (
            uki::image(&of_build, &out.path().join("manifest.json"), &uki, Progress::Quiet).err(),
            "manifest.json would overwrite",
        ),
        (kexec::tree(&of_build, out.path(), Progress::Quiet).err(), "give another directory with --out"),
    ] {
        let error = format!("{:#}", result.expect(expected));
        assert!(error.contains(expected), "no {expected:?} in: {error}");
    }
    of_build.ramdisk().unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 6, "nothing is left behind");
}
