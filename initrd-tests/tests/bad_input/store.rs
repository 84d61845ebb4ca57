//! Store paths that cannot be packed.

use crate::attempt::{options, refused};
use crate::fake::Fake;
use firn::build::options::BuildOptions;
use firn::build::system::closure::StoreSelection;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

#[test]
fn what_cannot_be_in_the_store_image() {
    let (system, out) = (Fake::new().in_store(), tempfile::tempdir().unwrap());
    let with = |selection: StoreSelection| BuildOptions { selection, ..options(&system, out.path()) };
    let excluded = vec![PathBuf::from("/nix/store/no-such-path")];
    refused(&with(StoreSelection { excluded, ..StoreSelection::default() }), &["cannot find /nix/store/no-such-path"]);
    let fake = Fake::new();
    fs::write(fake.path("other"), "").unwrap();
    let excluded = vec![fake.in_store()];
    refused(
        &with(StoreSelection { excluded, ..StoreSelection::default() }),
        &["cannot be excluded: it is not in the closure"],
    );

    let info = tempfile::tempdir().unwrap();
    let closure_info = || StoreSelection { closure_info: Some(info.path().into()), ..StoreSelection::default() };
    refused(&with(closure_info()), &["registration; --closure-info needs the directory", "No such file"]);
    let path = fake.in_store();
    fs::write(info.path().join("store-paths"), "").unwrap();
    let bad_hash = format!("the hash \"sha256:{}\", which is not a SHA-256", "e".repeat(52));
    for (registration, words) in [
        (format!("{}\nsha256:{}\n1\n\n0\n", system.display(), "e".repeat(52)), ["make it again", &bad_hash]),
        (format!("{}\nsha256:", path.display()), ["reading ", "is cut short"]),
        (String::new(), ["make it again", "it is for another system"]),
    ] {
        fs::write(info.path().join("registration"), registration).unwrap();
        refused(&with(closure_info()), &words);
    }
}

#[test]
fn store_paths_that_are_not_what_nix_says() {
    let (system, out) = (Fake::new().in_store(), tempfile::tempdir().unwrap());
    let fake = Fake::new();
    fs::write(fake.path("more"), "").unwrap();
    let more = fake.in_store();
    // Registered with Nix, but not in the store. No other run has it, which could leave references to it.
    let hash: String = more.file_name().unwrap().to_str().unwrap().chars().take(32).collect();
    let gone = format!("/nix/store/{}-gone", hash.chars().rev().collect::<String>());
    let hash = "0".repeat(52);
    let registration = format!("{gone}\nsha256:{hash}\n1\n\n0\n{}\nsha256:{hash}\n1\n\n1\n{gone}\n", more.display());
    let mut nix_store = Command::new("nix-store").arg("--load-db").stdin(Stdio::piped()).spawn().unwrap();
    nix_store.stdin.take().unwrap().write_all(registration.as_bytes()).unwrap();
    assert!(nix_store.wait().unwrap().success());
    let selection = StoreSelection { added: vec![more.clone()], ..StoreSelection::default() };
    refused(
        &BuildOptions { selection, ..options(&system, out.path()) },
        &[&format!("{gone} is not in the store of this machine"), "nix-store --verify --check-contents --repair"],
    );
    let deleted = Command::new("nix-store").arg("--delete").arg(&more).arg(&gone).output().unwrap();
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));

    // An ordinary user who packs a file that only root may read.
    let fake = Fake::new();
    fs::write(fake.path("secret"), "").unwrap();
    let secret = fake.in_store();
    fs::set_permissions(secret.join("secret"), Permissions::from_mode(0o000)).unwrap();
    let info = tempfile::tempdir().unwrap();
    let dump = Command::new("nix-store").arg("--dump-db").arg(&secret).output().unwrap().stdout;
    fs::write(info.path().join("registration"), dump).unwrap();
    fs::write(info.path().join("store-paths"), format!("{}\n", secret.display())).unwrap();
    let place = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    open(info.path());
    open(place.path());
    let firn = place.path().join("firn");
    fs::copy(env::current_exe().unwrap().parent().unwrap().with_file_name("firn"), &firn).unwrap();
    for (format, words) in [("squashfs", "Failed to read file"), ("erofs", "secret for mkfs.erofs: Permission denied")]
    {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&firn).arg("image").arg(&secret);
        nobody.args(["--quiet", "--format", format, "--out"]).arg(place.path().join("image"));
        let output = nobody.arg("--closure-info").arg(info.path()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(words), "{error}");
        assert!(error.contains("firn: writing ") && error.lines().count() == 1, "{error}");
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing is left behind");
    }
    fs::set_permissions(secret.join("secret"), Permissions::from_mode(0o444)).unwrap();
}
