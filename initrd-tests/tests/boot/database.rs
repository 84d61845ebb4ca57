//! The Nix database that the builder puts into the ramdisk, used by the oldest and the newest Nix of Debian.

use super::LINUX_6_1;
use super::fixture::{Build, boot, run, sorted_lines, with_appended};
use super::systemd::registration_changes_nothing;
use qemu::Machine;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A separate store in a directory, and a Nix for it.
struct Store<'a> {
    root: TempDir,
    nix: &'a dyn Fn(&str) -> Command,
}

impl<'a> Store<'a> {
    fn new(nix: &'a dyn Fn(&str) -> Command) -> Self {
        let root = directory();
        fs::write(root.path().join("nix.conf"), "build-users-group =\nsubstituters =\n").unwrap();
        Self { root, nix }
    }

    /// Runs nix-store and returns its standard output. A message on standard error is a failure.
    fn nix_store(&self, script: &str) -> String {
        let program = (self.nix)("nix-store");
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", &format!("\"$@\" {script} 2>&1"), "sh"])
            .arg(program.get_program())
            .args(program.get_args());
        let root = self.root.path();
        shell.env("NIX_REMOTE", format!("local?root={}", root.display())).env("NIX_CONF_DIR", root).env("HOME", root);
        run(shell.env("ROOT", root)).unwrap()
    }

    fn database(&self) -> String {
        format!("{}/nix/var/nix/db/db.sqlite", self.root.path().display())
    }

    /// Makes the files of stage 1: the database and its schema.
    fn put(&self, database: &[u8]) {
        fs::create_dir_all(Path::new(&self.database()).parent().unwrap()).unwrap();
        fs::write(self.database(), database).unwrap();
        fs::write(Path::new(&self.database()).with_file_name("schema"), "10").unwrap();
    }
}

/// On a disk: /tmp may be in memory.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn shell(script: &str, argument: impl AsRef<Path>) -> String {
    run(Command::new("sh").args(["-euc", script]).arg(argument.as_ref())).unwrap()
}

/// The database in the ramdisk.
fn packed(build: &Build) -> Vec<u8> {
    let work = directory();
    let file = work.path().join("db.sqlite");
    // The first segment is a zstd frame. zstd ignores the bytes after it as garbage, and cpio does not see them.
    let script =
        "zstd --decompress --stdout < \"$0\" 2> /dev/null | cpio --extract --to-stdout --quiet firn/db.sqlite > ";
    shell(&format!("{script}{}", file.display()), build.directory.join("initrd"));
    fs::read(file).unwrap()
}

fn machines_nix(program: &str) -> Command {
    Command::new(program)
}

#[test]
fn it_is_what_nix_makes_of_the_registration() {
    let build = LINUX_6_1.build();
    let (ours, theirs) = (Store::new(&machines_nix), Store::new(&machines_nix));
    ours.put(&packed(build));
    let image = build.directory.join("nix-store.squashfs");
    let registration = theirs.root.path().join("registration");
    shell(&format!("unsquashfs -cat \"$0\" nix-path-registration > {}", registration.display()), image);
    assert_eq!(theirs.nix_store("--load-db < \"$ROOT\"/registration"), "");

    // Before a Nix has opened firn's database.
    run(Command::new("sqlite3").args([&theirs.database(), "UPDATE ValidPaths SET registrationTime = 1"])).unwrap();
    // Sorted: the copy has an index before a trigger.
    let dump = |store: &Store| sorted_lines(&run(Command::new("sqlite3").args([&store.database(), ".dump"])).unwrap());
    let (dumped, expected) = (dump(&ours), dump(&theirs));
    let paths = dumped.iter().filter(|line| line.starts_with("INSERT INTO ValidPaths"));
    assert_eq!(paths.count(), build.closure.len());
    assert_eq!(dumped, expected);
    assert_eq!(ours.nix_store("--dump-db"), theirs.nix_store("--dump-db"));
}

#[test]
fn the_machines_nix_works_with_it() {
    works_with_it(&machines_nix);
}

#[test]
fn the_newest_nix_works_with_it() {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu/debian-packages");
    let unwanted =
        "bash-static debconf debianutils passwd perl perl-base libdbd-sqlite3-perl libwww-curl-perl xz-utils";
    let packages = run(Command::new(packages).args(["--without", unwanted, "sid", "nix-bin"])).unwrap();
    // Unpacked and run with its own loader and libraries: nothing is installed.
    let unpacked = directory();
    for package in packages.lines() {
        let file = package.split_whitespace().next_back().unwrap();
        run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(unpacked.path())).unwrap();
    }
    works_with_it(&|program| {
        let libraries = unpacked.path().join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).args(["--argv0", program]);
        command.arg(unpacked.path().join("usr/bin").join(program));
        command
    });
}

/// Reads and writes, with the contents of the image in the store.
fn works_with_it(nix: &dyn Fn(&str) -> Command) {
    let build = LINUX_6_1.build();
    let toplevel = &build.manifest.toplevel;
    let store = Store::new(nix);
    store.put(&packed(build));
    let root = store.root.path();
    let unpack = format!("unsquashfs -quiet -no-progress -dest {}/nix/store \"$0\" > /dev/null", root.display());
    shell(&unpack, build.directory.join("nix-store.squashfs"));
    fs::create_dir_all(root.join("nix/var/nix/gcroots")).unwrap();
    symlink(toplevel, root.join("nix/var/nix/gcroots/system")).unwrap();

    // Without a registration, the guard of stage 1 keeps the store.
    let guard = root.join("nix/var/nix/temproots/1-the-store-is-not-registered");
    fs::rename(root.join("nix/var/nix/db"), root.join("db")).unwrap();
    fs::create_dir_all(&guard).unwrap();
    for command in ["--gc".into(), format!("--delete {toplevel}")] {
        let said = store.nix_store(&format!("{command} 2>&1 || echo refused"));
        assert!(said.ends_with("refused\n") && said.contains("1-the-store-is-not-registered"), "{said}");
    }
    fs::remove_dir_all(root.join("nix/var/nix/db")).unwrap();
    fs::rename(root.join("db"), root.join("nix/var/nix/db")).unwrap();
    assert!(store.nix_store("--add \"$ROOT\"/nix.conf").ends_with("-nix.conf\n"));
    fs::remove_dir(&guard).unwrap();
    store.nix_store("--gc");

    let before = store.nix_store("--dump-db");
    let whole = |store: &Store| {
        assert_eq!(sorted_lines(&store.nix_store(&format!("--query --requisites {toplevel}"))), build.closure);
        let verified = store.nix_store("--verify --check-contents");
        assert!(verified.contains("checking") && !verified.contains("/nix/store/"), "{verified}");
    };
    whole(&store);
    let added = store.nix_store("--add \"$ROOT\"/nix.conf");
    assert!(added.starts_with("/nix/store/") && added.ends_with("-nix.conf\n"), "{added}");
    assert!(store.nix_store("--dump-db").contains(added.trim()));
    let collected = store.nix_store("--gc");
    assert!(collected.contains("-nix.conf'"), "{collected}");
    whole(&store);
    assert_eq!(store.nix_store("--dump-db"), before);
}

/// As in each boot of a ramdisk that was built with `firn build --database load`.
#[test]
fn without_it_the_systems_own_nix_makes_one() {
    // The database in the ramdisk belongs to its own image, and firn.store= may name any image.
    for word in ["firn.register=load", "firn.store=/nix-store.squashfs"] {
        let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
        machine.append(&format!("{word} probe=register"));
        let report = boot(&machine).unwrap();
        assert_eq!(report.boot["warnings"], serde_json::json!([]));
        assert!(report.dmesg.iter().any(|line| line.text.contains("sw/bin/nix-store --load-db <")), "{word}");
        registration_changes_nothing(&report);
    }
}

#[test]
fn one_that_cannot_be_copied_leaves_nothing_behind() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = with_appended(&LINUX_6_1, work.path(), "mkdir -p firn/db.sqlite");
    machine.append("probe=facts");
    let report = boot(&machine).unwrap();
    let [warning] = report.boot["warnings"].as_array().unwrap().as_slice() else { panic!("{:#}", report.boot) };
    let warning = warning.as_str().unwrap();
    for words in [
        "The store is not registered",
        "copying the Nix database of the ramdisk to ",
        "Is a directory",
        "nix-store --load-db <",
    ] {
        assert!(warning.contains(words), "no {words:?} in: {warning}");
    }
    assert_eq!(report.paths["/nix/var/nix/db/db.sqlite"], None);
}
