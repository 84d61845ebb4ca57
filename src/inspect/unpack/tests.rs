use super::*;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use tempfile::TempDir;

/// A ramdisk that GNU cpio packs from the files that a script makes and whose names it prints.
fn ramdisk(script: &str) -> (TempDir, Ramdisk) {
    let directory = tempfile::tempdir().unwrap();
    let script = format!("mkdir tree; cd tree; {{ {script}; }} | cpio --create --format=newc --quiet > ../initrd");
    let output = Command::new("sh").args(["-euc", &script]).current_dir(&directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ramdisk = Ramdisk::open(&directory.path().join("initrd")).unwrap();
    (directory, ramdisk)
}

/// A member, with any path and mode.
fn member(path: &str, mode: u32, contents: &str) -> String {
    linked(path, mode, 1, contents)
}

/// The same, with several links; all such members are one file.
fn linked(path: &str, mode: u32, links: u32, contents: &str) -> String {
    let pad = |length: usize| "\0".repeat(length.next_multiple_of(4) - length);
    let (bytes, name) = (contents.len(), path.len() + 1);
    let header = format!(
        "070701{0:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{bytes:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name:08x}{0:08x}",
        0
    );
    header + path + "\0" + &pad(110 + name) + contents + &pad(bytes)
}

fn text(ramdisk: &Ramdisk, path: &str) -> Result<String> {
    let mut out = Vec::new();
    cat(ramdisk, Path::new(path), &mut out).map(|_| String::from_utf8(out).unwrap())
}

#[test]
fn single_files() {
    let (_directory, ramdisk) = ramdisk(
        "mkdir d; echo x > d/one; ln d/one d/two; ln -s one d/link; mkfifo p; : > empty; \
         find d d/one d/two d/link p empty -maxdepth 0",
    );
    assert_eq!(text(&ramdisk, "/d/one").unwrap(), "x\n");
    assert_eq!(text(&ramdisk, "d/two").unwrap(), "x\n");
    assert_eq!(text(&ramdisk, "./empty").unwrap(), "");
    for (path, expected) in [
        ("d", "d in "),
        ("d", "is a directory; name a file"),
        ("d/link", "a symbolic link to one; name that file"),
        ("p", "no regular file"),
        ("d/three", "there is no d/three in"),
    ] {
        let error = format!("{:#}", text(&ramdisk, path).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_last_one_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("initrd");
    fs::write(&path, member("a", 0o100_644, "old") + &member("a", 0o100_600, "new")).unwrap();
    let ramdisk = Ramdisk::open(&path).unwrap();
    assert_eq!(text(&ramdisk, "a").unwrap(), "new");
    let out = directory.path().join("out");
    unpack(&ramdisk, &out, &mut |_| ()).unwrap();
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "new");
    assert_eq!(fs::metadata(out.join("a")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn links_end_with_their_archive() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("initrd");
    let archive = |name: &str| linked(name, 0o100_644, 2, name) + &member("TRAILER!!!", 0, "");
    fs::write(&path, zstd::encode_all((archive("one") + &archive("two")).as_bytes(), 1).unwrap()).unwrap();
    let (ramdisk, out) = (Ramdisk::open(&path).unwrap(), directory.path().join("out"));
    unpack(&ramdisk, &out, &mut |_| ()).unwrap();
    for name in ["one", "two"] {
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), name);
        assert_eq!(text(&ramdisk, name).unwrap(), name);
    }
}

#[test]
fn every_attribute_is_unpacked() {
    let (directory, ramdisk) = ramdisk(
        "mkdir d; echo x > d/one; ln d/one d/two; ln -s /nowhere d/link; mkfifo p; chmod 4711 d/one; touch -d @99 d/one d; \
         chmod 555 d; find . | sort",
    );
    let out = directory.path().join("out");
    unpack(&ramdisk, &out, &mut |member| panic!("{member:?}")).unwrap();
    let one = fs::metadata(out.join("d/one")).unwrap();
    assert_eq!((one.ino(), one.nlink(), one.mtime()), (fs::metadata(out.join("d/two")).unwrap().ino(), 2, 99));
    assert_eq!(fs::read_to_string(out.join("d/one")).unwrap(), "x\n");
    let difference = Command::new("diff")
        .arg("-r")
        .arg("--no-dereference")
        .args([directory.path().join("tree/d"), out.join("d")])
        .output()
        .unwrap();
    assert!(difference.status.success(), "{difference:?}");
    assert_eq!(fs::metadata(out.join("d")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(out.join("d")).unwrap().mtime(), 99);
    assert_eq!(fs::read_link(out.join("d/link")).unwrap(), Path::new("/nowhere"));

    let error = unpack(&ramdisk, &out, &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
}

#[test]
fn a_symlink_in_the_place_of_a_file_is_not_written_through() {
    let directory = tempfile::tempdir().unwrap();
    let (victim, link) = (directory.path().join("victim"), directory.path().join("link"));
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, &link).unwrap();
    create(&link).unwrap_err();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    create(&victim).unwrap();
}

#[test]
fn c_3_absolute_names_and_every_way_out_stay_below_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o700)).unwrap();
    let to_victim = member("a", 0o120_777, victim.to_str().unwrap());
    // Directories of the same path as the victim's, below the directory.
    let mut inside = String::new();
    for above in victim.ancestors().collect::<Vec<_>>().iter().rev().skip(1) {
        inside += &member(above.to_str().unwrap(), 0o040_755, "");
    }
    let victims = victim.strip_prefix("/").unwrap().join("x");
    let victims = victims.to_str().unwrap();
    let marked = member("victim", 0o040_755, "") + &member("victim/zero-copy", 0o100_644, "");
    for (number, (archive, made)) in [
        (member("../victim/x", 0o100_644, "x"), ""),
        (member("victim", 0o040_755, "") + &member("../victim/x", 0o100_644, "x"), "victim/x"),
        (member("a/../../victim/x", 0o100_644, "x"), ""),
        (inside.clone() + &member(&format!("{}/x", victim.display()), 0o100_644, "x"), victims),
        (inside.clone() + &to_victim + &member("a/x", 0o100_644, "x"), victims),
        (to_victim.clone() + &member("a/x", 0o100_644, "x"), ""),
        (member(".", 0o100_644, "x"), ""),
        (member("a", 0o040_777, "") + &to_victim, "a"),
        (to_victim.clone() + &member("a", 0o100_644, "x"), "a"),
        (linked("a", 0o100_644, 2, "") + &to_victim + &linked("b", 0o100_777, 2, ""), "b"),
        (member("victim/zero-copy", 0o100_644, "") + &member("../victim", 0o100_644, "x"), ""),
        (inside.clone() + &marked + &member("victim", 0o100_644, "x"), "victim"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join("initrd");
        fs::write(&path, archive).unwrap();
        let out = directory.path().join(number.to_string());
        unpack(&Ramdisk::open(&path).unwrap(), &out, &mut |_| ()).unwrap();
        assert!(made.is_empty() || fs::symlink_metadata(out.join(made)).is_ok(), "{number}");
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "{number}");
        assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o700, "{number}");
    }
}

#[test]
fn a_file_that_is_no_ramdisk_leaves_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (file, out) = (directory.path().join("file"), directory.path().join("out"));
    for contents in ["", "no ramdisk"] {
        fs::write(&file, contents).unwrap();
        let unpacked = unpack(&Ramdisk::open(&file).unwrap(), &out, &mut |_| {});
        assert!(!unpacked.is_ok_and(|contents| contents.stop.is_none()) && !out.exists(), "{contents}");
    }
}
