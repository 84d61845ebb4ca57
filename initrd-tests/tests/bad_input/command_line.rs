//! Kernel parameters that no kernel or boot loader would read as they stand, and kernels that are too old.

use crate::attempt::{options, refused};
use crate::fake::Fake;
use firn::build::build;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::ipxe::{self, Form};
use firn::build::ways::kexec;
use firn::build::ways::uki::{self, UkiOptions};
use firn::host::progress::Progress;
use std::fs;

/// A system with these kernel parameters.
fn with(words: &[String]) -> Fake {
    let fake = Fake::new();
    fake.file("kernel-params", &words.join(" "));
    fake
}

fn numbered(count: usize, end: &str) -> Vec<String> {
    (1..=count).map(|number| format!("w{number}{end}")).collect()
}

#[test]
fn c_4_what_the_kernel_would_cut_or_panic_at() {
    let out = tempfile::tempdir().unwrap();
    let built = |words: &[String], expected: &[&str]| refused(&options(&with(words).in_store(), out.path()), expected);
    built(
        &[format!("a.b={}", "x".repeat(2100))],
        &["bytes, and the kernel reads only 2047", "the longest one has 2104 bytes: a.b=xxx"],
    );
    built(&numbered(300, ".x=1"), &["bytes, and the kernel reads only 2047, of which boot loaders need up to 128"]);
    built(
        &numbered(36, ""),
        &["too many words", "passes at most 32 to init", "panics at w33 before it shows anything"],
    );
    built(&numbered(36, "=1"), &["too many words", "panics at w31=1"]);
    built(
        &[numbered(30, ""), vec!["--".into(), "x".into(), "y".into(), "z".into()]].concat(),
        &["panics at z", "of those after --"],
    );

    build(&options(&with(&numbered(32, "")).in_store(), out.path()), Progress::Quiet).unwrap();
}

#[test]
fn c_4_a_kernel_that_is_too_old() {
    let out = tempfile::tempdir().unwrap();
    for (release, is_refused) in [("5.4.300", true), ("5.5", true), ("4.19.0", true), ("5.6", false), ("10.0", false)] {
        let fake = Fake::new();
        let path = |release: &str| fake.path(&format!("kernel-modules/lib/modules/{release}"));
        fs::rename(path("6.9"), path(release)).unwrap();
        let options = options(&fake.in_store(), out.path());
        if is_refused {
            refused(
                &options,
                &[&format!("has the kernel {release}, and stage 1 of firn needs Linux 5.6 or newer"), "kernelPackages"],
            );
        } else {
            build(&options, Progress::Quiet).unwrap();
            fs::remove_dir_all(out.path()).unwrap();
        }
    }
}

#[test]
fn c_5_what_no_command_line_carries() {
    let out = tempfile::tempdir().unwrap();
    let built =
        |word: &str, expected: &[&str]| refused(&options(&with(&[word.into()]).in_store(), out.path()), expected);
    built("a=b\nc", &["boot.kernelParams of /nix/store/", "the kernel parameter", "has a control character"]);
    built("a=b\x1b[2J", &["a=b\\u{1b}[2J has a control character"]);
    built("a=\"b c", &["the kernel parameter a=\"b c has a double quote"]);
    built("a=${b}", &["the kernel parameter a=${b} has ${…}, which iPXE replaces"]);
    built("a=é", &["the kernel parameter a=é has characters that are not ASCII"]);
    built("live.nixos.password=\"x", &["live.nixos.password=(hidden) has a double quote"]);
}

#[test]
fn c_5_the_file_of_an_old_system_is_a_command_line() {
    let out = tempfile::tempdir().unwrap();
    let words = ["a.b=\"c  d\"".to_owned(), "quiet\n".into()];
    let manifest = build(&options(&with(&words).in_store(), out.path()), Progress::Quiet).unwrap();
    assert!(manifest.cmdline.ends_with(" a.b=\"c  d\" quiet"), "{}", manifest.cmdline);
    let script = fs::read_to_string(out.path().join("netboot.ipxe")).unwrap();
    // a.b="c  d" in hexadecimal
    assert!(script.contains("\nset firn-word-1:hexraw 612e623d226320206422\n"), "{script}");
}

#[test]
fn c_4_what_nobody_can_change_later_is_measured() {
    let (out, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    build(&options(&Fake::new().in_store(), out.path()), Progress::Quiet).unwrap();
    let built = BuildDirectory::open(out.path()).unwrap();
    let uki = |append: &str| {
        let options = UkiOptions { append: append.into(), ..UkiOptions::default() };
        let made = uki::image(&built, &other.path().join("nixos.efi"), &options, Progress::Quiet);
        made.map_err(|error| format!("{error:#}"))
    };
    for (append, expected) in [
        (format!("a.b={}", "x".repeat(2500)), "and the kernel reads only 2047: remove"),
        (numbered(40, "").join(" "), "panics at w33"),
        (format!("-- {}", numbered(40, "").join(" ")), "panics at w33"),
        (
            "a=\"b c".into(),
            "the parameters to append do not fit into a command line: the kernel parameter a=\"b c has a double quote",
        ),
        ("a\nb".into(), "has a control character"),
    ] {
        let error = uki(&append).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    uki("a=\"b c\" d -- e").unwrap();

    // A build of another version of firn, whose manifest has a long line.
    let manifest = out.path().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace(" quiet", &format!(" quiet {}", numbered(40, "").join(" ")))).unwrap();
    let built = BuildDirectory::open(out.path()).unwrap();
    let trees = [
        ipxe::tree(&built, &other.path().join("ipxe"), Form::Combined, None, Progress::Quiet),
        kexec::tree(&built, &other.path().join("kexec"), Progress::Quiet),
        kexec::tarball(&built, &other.path().join("tarball"), "", Progress::Quiet),
    ];
    for made in trees {
        let error = format!("{:#}", made.unwrap_err());
        assert!(error.contains("panics at w33"), "{error}");
    }
}
