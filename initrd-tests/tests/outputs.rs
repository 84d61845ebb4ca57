//! Claims about all outputs of `firn`: the same closure gives the same bytes, programs can follow the progress, a large store image
//! needs little memory, and a failure leaves no files behind.

mod fake;
mod shell;
#[path = "outputs/uki.rs"]
mod uki;

use fake::Fake;
use serde_json::Value;
use shell::{bash, succeeds};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// The largest memory that firn may use, KiB.
const MEMORY: u64 = 64 << 10;

/// The size of a far larger image, bytes.
const LARGE: u64 = 3 << 30;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A system for both formats, with some files that are large enough for several threads.
fn system() -> &'static Path {
    static SYSTEM: OnceLock<PathBuf> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let fake = Fake::new();
        fake.file("kernel-modules/lib/modules/6.9/modules.builtin", "kernel/loop.ko\nkernel/erofs.ko\n");
        for size in 1..40_u64 {
            let numbers = (0..size * 8000).map(|number| (number * number % 9973).to_string());
            fake.file(&format!("share/{size}"), &numbers.collect::<Vec<_>>().join(" "));
        }
        fake.in_store()
    })
}

/// A script that makes every kind of output in the current directory.
const EVERYTHING: &str = "
    firn build $system --out squashfs --firn-init $FIRN_INIT --quiet
    firn build $system --out erofs --firn-init $FIRN_INIT --quiet --format erofs
    firn image $system --out image --quiet
    firn ramdisk $system --image image --out ramdisk --firn-init $FIRN_INIT --quiet
    firn ramdisk $system --image image --out split --split --firn-init $FIRN_INIT --quiet --compressor xz
    for build in squashfs erofs; do
        firn ipxe $build --out ipxe-$build --quiet
        firn ipxe $build --out ipxe-split-$build --split --quiet
        firn kexec $build --out kexec-$build --quiet
        firn tarball $build --out tarball-$build --quiet
        firn uki $build --out uki-$build --quiet
    done";

#[test]
fn the_same_closure_is_the_same_bytes() {
    let work = TempDir::new().unwrap();
    let make = |name: &str, surroundings: &str| {
        let directory = work.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        succeeds(bash(&directory, system(), &format!("{surroundings}\n{EVERYTHING}")));
        directory
    };
    // On one processor there is one thread. File times count seconds, and every command here needs longer than one.
    let one = make("one", "umask 022; export TZ=UTC; firn() { taskset --cpu-list 0 $program \"$@\"; }");
    let other = make("another place/further down", "umask 077; export TZ=Pacific/Kiritimati");
    let differences = Command::new("diff").arg("--recursive").args([&one, &other]).output().unwrap();
    assert!(differences.status.success(), "{}", text(differences.stdout));
    assert_eq!(fs::read_dir(&one).unwrap().count(), 5 + 2 * 5, "all of it");
}

#[test]
fn programs_can_follow_it() {
    let work = TempDir::new().unwrap();
    let json = |command: &str| {
        let output = succeeds(bash(work.path(), system(), &format!("firn {command}")));
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        for file in made["files"].as_array().unwrap() {
            let path = work.path().join(made["directory"].as_str().unwrap()).join(file["name"].as_str().unwrap());
            assert_eq!(file["bytes"], fs::metadata(&path).unwrap().len(), "{command}");
            let mut sum = Command::new("sha256sum");
            sum.arg(&path);
            let sum = succeeds(sum);
            assert!(text(sum.stdout).starts_with(file["sha256"].as_str().unwrap()), "{command}");
        }
        let lines: Vec<Value> =
            text(output.stderr).lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        (made, lines)
    };
    let ramdisk = "--firn-init $FIRN_INIT";
    let (made, lines) = json(&format!("build $system --out build --json {ramdisk}"));
    assert_eq!(made["files"].as_array().unwrap().len(), 5);
    let note = lines.iter().find(|line| line["note"].is_string()).unwrap();
    assert!(note["note"].as_str().unwrap().starts_with("No prebuilt Nix database"));
    let done = lines.iter().filter(|line| line["done"] == true);
    let steps: Vec<_> = done.map(|line| line["step"].as_str().unwrap()).collect();
    assert_eq!(
        steps,
        ["Packing the store", "Taking the checksum", "Packing stage 1", "Packing the ramdisk", "Copying a file"]
    );
    for line in lines.iter().filter(|line| line["note"].is_null()) {
        let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} of {line}"));
        assert!(number("bytes") <= number("total"), "{line}");
        assert_eq!(line["done"] == true, number("bytes") == number("total") && number("seconds_left") == 0, "{line}");
    }

    for (command, files) in [
        ("image $system --out image".into(), 1),
        (format!("ramdisk $system --image image --out ramdisk {ramdisk}"), 1),
        ("ipxe build --out ipxe".into(), 5),
        ("kexec build --out kexec".into(), 4),
        ("tarball build --out .".into(), 1),
        ("uki build --out nixos.efi".into(), 1),
    ] {
        let (made, lines) = json(&format!("{command} --json --quiet"));
        assert_eq!((made["files"].as_array().unwrap().len(), lines.len()), (files, 0), "{command}");
    }
    let output = succeeds(bash(work.path(), system(), "firn verify build --json --quiet"));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(findings.len() == 7 && findings.iter().all(|finding| finding["fault"].is_null()), "{findings:?}");
}

#[test]
fn references_to_excluded_paths_are_named() {
    let work = TempDir::new().unwrap();
    // A system that refers to another path: the paths of `nix-store --add` have no references.
    let script = "
        echo other > other
        other=$(nix-store --add other)
        mkdir info
        { nix-store --dump-db $system | sed '$d'; printf '1\\n%s\\n' $other; nix-store --dump-db $other; } > info/registration
        printf '%s\\n' $system $other > info/store-paths
        firn image $system --closure-info info --out whole --json
        firn image $system --closure-info info --out without --json --exclude $other
        echo $other >&2";
    let said = text(succeeds(bash(work.path(), system(), script)).stderr);
    let other = said.lines().last().unwrap();
    let notes: Vec<_> = said.lines().filter(|line| line.contains("\"note\"")).collect();
    let expected =
        format!("1 reference from packed store paths to excluded ones: {} refers to {other}. ", system().display());
    assert!(notes.len() == 1 && notes[0].contains(&expected), "no {expected:?} in {said}");
}

#[test]
fn a_9_modules_that_are_built_in_are_named() {
    let work = TempDir::new().unwrap();
    let fake = Fake::new();
    let modules = "kernel-modules/lib/modules/6.9/";
    fake.file(&format!("{modules}modules.dep"), "overlay.ko:\nsquashfs.ko:\ncrc32_generic.ko:\n");
    fake.file(&format!("{modules}modules.builtin"), "kernel/loop.ko\nkernel/lib/crc32.ko\nkernel/lib/crc16.ko\n");
    fake.file(&format!("{modules}modules.alias"), "alias crc32 crc32_generic\n");
    fake.file(&format!("{modules}crc32_generic.ko"), "crc32_generic");
    let system = fake.in_store();
    let script = "
        firn build $system --out lines --firn-init $FIRN_INIT --available-module crc32 --available-module crc16
        firn build $system --out json --firn-init $FIRN_INIT --module loop --module crc16 --json > /dev/null
        firn ls lines/initrd";
    let output = succeeds(bash(work.path(), &system, script));
    let (said, files) = (text(output.stderr), text(output.stdout));
    for line in [
        "crc16 is built into the kernel: the ramdisk needs no file for it",
        r#"{"note":"loop and crc16 are built into the kernel: the ramdisk needs no files for them"}"#,
    ] {
        assert!(said.lines().any(|other| other == line), "no {line:?} in {said}");
    }
    assert!(files.contains("lib/modules/6.9/crc32_generic.ko"), "{files}");
}

#[test]
fn a_build_of_a_ready_image_is_no_other() {
    let work = TempDir::new().unwrap();
    // Enough data for two images.
    let script = "
        head --bytes 900K /dev/urandom > large
        words=\"$system --quiet --max-image 1M --block-size 1M --store-content $(nix-store --add large)\"
        firn build $words --out packed --firn-init $FIRN_INIT
        mkdir images
        firn image $words --out images
        firn build ${words/--max-image 1M --block-size 1M/} --image images/nix-store.squashfs --image images/nix-store-2.squashfs \\
            --out ready --firn-init $FIRN_INIT
        diff --recursive packed ready";
    succeeds(bash(work.path(), system(), script));
    let mut both =
        bash(work.path(), system(), "firn build $system --image images/nix-store.squashfs --format erofs --out x");
    let output = both.output().unwrap();
    assert!(!output.status.success() && text(output.stderr).contains("cannot be used with"));
}

/// A build whose image is a sparse file: only its beginning is a squashfs.
fn large_build() -> &'static Path {
    static BUILD: OnceLock<TempDir> = OnceLock::new();
    let build = BUILD.get_or_init(|| {
        let build = TempDir::new().unwrap();
        let make = "
            firn build $system --out . --firn-init $FIRN_INIT --quiet
            truncate --size 3G nix-store.squashfs
            firn ramdisk $system --image nix-store.squashfs --split --out split --firn-init $FIRN_INIT --quiet
            $measured $program ramdisk $system --image nix-store.squashfs --out new --firn-init $FIRN_INIT --json 2> /dev/null
            mv new initrd";
        let output = little_memory(build.path(), make);
        let ramdisk: Value = serde_json::from_slice(&output.stdout).unwrap();
        let path = build.path().join("manifest.json");
        let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let files = manifest["files"].as_array_mut().unwrap();
        let plan = succeeds(bash(build.path(), system(), "firn cat initrd /firn/plan.json"));
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
        (files[0]["bytes"], files[0]["sha256"]) = (LARGE.into(), plan["images"][0]["sha256"].clone());
        files[1] = ramdisk["files"][0].clone();
        files[1]["name"] = "initrd".into();
        manifest["before_images"] = fs::metadata(build.path().join("split")).unwrap().len().into();
        fs::write(path, manifest.to_string()).unwrap();
        build
    });
    build.path()
}

/// Runs a script. A command after `$measured` fails if it uses too much memory.
fn little_memory(directory: &Path, script: &str) -> Output {
    let measured = directory.join(".measured");
    let python = format!(
        "#!/usr/bin/env python3\n\
         import resource, subprocess, sys\n\
         status = subprocess.call(sys.argv[1:])\n\
         peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n\
         sys.exit(status if peak < {MEMORY} else f'{{sys.argv[2]}} took {{peak}} KiB')\n"
    );
    fs::write(&measured, python).unwrap();
    let mut command = bash(directory, system(), script);
    command.env("measured", "python3 .measured");
    succeeds(command)
}

#[test]
fn large_images_take_little_memory() {
    let build = large_build();
    let make = "
        for way in ipxe kexec; do $measured $program $way . --out $way --quiet; rm -r $way; done
        $measured $program ipxe . --split --out split-tree --quiet
        rm -r split-tree
        $measured $program tarball . --out tarball --quiet
        $measured $program uki . --out uki --quiet
        rm tarball uki
        $measured $program verify . --quiet
        $measured $program inspect . > /dev/null";
    little_memory(build, make);
}

/// The files in a directory.
fn files(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn whatever_is_interrupted_leaves_nothing_behind() {
    let build = large_build();
    let out = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(out.path().join("old"), "of an earlier build").unwrap();
    let image = build.join("nix-store.squashfs");
    for (number, command) in
        ["tarball $0 --out old", "uki $0 --out old", "ramdisk $system --image $0/nix-store.squashfs --out old"]
            .into_iter()
            .enumerate()
    {
        let firn_init = if command.starts_with("ramdisk") { "--firn-init $FIRN_INIT" } else { "" };
        let mut firn = bash(out.path(), system(), &format!("exec $program {command} {firn_init}"));
        let child = firn.arg(build).stderr(Stdio::piped()).spawn().unwrap();
        while files(out.path()).len() < 2 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let signal = ["-INT", "-TERM", "-HUP"][number % 3];
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        let said = text(output.stderr);
        assert!(said.ends_with("interrupted\n"), "{said}");
        assert_eq!(files(out.path()), ["old"], "{command}");
        assert_eq!(fs::read_to_string(out.path().join("old")).unwrap(), "of an earlier build");
    }
    assert_eq!(fs::metadata(image).unwrap().len(), LARGE);
}

#[test]
fn without_room_nothing_is_left_behind() {
    let work = TempDir::new().unwrap();
    let fake = Fake::new();
    fake.file("kernel-modules/lib/modules/6.9/modules.builtin", "kernel/loop.ko\nkernel/erofs.ko\n");
    // Data that cannot be compressed.
    let noise = (0_u64..1 << 20).flat_map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17).to_le_bytes());
    fs::write(fake.path("large"), noise.collect::<Vec<_>>()).unwrap();
    let system = fake.in_store();
    succeeds(bash(work.path(), &system, "firn build $system --out build --firn-init $FIRN_INIT --profile dev --quiet"));
    let full = work.path().join("full");
    fs::create_dir(&full).unwrap();
    // Space for the image, but not for a ramdisk with the image.
    succeeds(bash(work.path(), &system, "mount --types tmpfs --options size=12m tmpfs full"));
    let initrd = full.join("initrd");
    fs::write(&initrd, "of an earlier build").unwrap();
    let small = "head --bytes=7M /dev/zero > full/other;";
    let init = "--firn-init $FIRN_INIT";
    for (command, file) in [
        (format!("build $system --out full {init} --profile dev"), "full/initrd"),
        (format!("{small} build $system --out full {init} --profile dev"), "full/nix-store.squashfs"),
        (format!("{small} build $system --out full {init} --format erofs"), "full/nix-store.erofs"),
        (format!("{small} image $system --out full/image"), "full/image"),
        (format!("{small} ramdisk $system --image build/nix-store.squashfs --out full {init}"), "full/initrd"),
        (format!("{small} ipxe build --out full"), "full/initrd"),
        (format!("{small} ipxe build --out full --split"), "full/nix-store.squashfs"),
        (format!("{small} kexec build --out full"), "full/initrd.gz"),
        (format!("{small} tarball build --out full/tarball"), "full/tarball"),
        (format!("{small} uki build --out full"), "full/nixos.efi"),
    ] {
        let (before, command) =
            command.rsplit_once(';').map_or(("", &*command), |(before, rest)| (before, rest.trim()));
        let output = bash(work.path(), &system, &format!("{before}\nfirn {command} --quiet")).output().unwrap();
        let error = text(output.stderr);
        assert!(!output.status.success(), "{command}");
        let (start, next) =
            (format!("firn: writing {file}: "), "; make room on that file system, or give a place on another one");
        let right = error.starts_with(&start) && error.trim_end().ends_with(next) && error.lines().count() == 1;
        assert!(right, "{command}: {error}");
        fs::remove_file(full.join("other")).unwrap_or_default();
        assert_eq!(files(&full), ["initrd"], "{command}");
        assert_eq!(fs::read_to_string(&initrd).unwrap(), "of an earlier build", "{command}");
    }
    let output = bash(work.path(), &system, &format!("{small} firn unpack build full/new/tree")).output().unwrap();
    let error = text(output.stderr);
    assert!(error.contains("into full/new/tree") && error.contains("; make room on that file system"), "{error}");
    assert_eq!(files(&full), ["initrd", "other"]);
    succeeds(bash(work.path(), &system, "umount full"));
}
