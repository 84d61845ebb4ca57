//! Files that change between the time when firn describes them and the time when it packs them, and layers that change in a cache.

use crate::fake::Fake;
use crate::shell::{bash, succeeds};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Changes one byte in the middle of a file.
fn flip(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let place = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 1], place).unwrap();
}

/// A build with a cache for a system with a store path that becomes a layer, and with the words of the argument.
const BUILD: &str = "
    seq 1000000 > large; large=$(nix-store --add large)
    build() { firn build $system --store-content $large --firn-init $FIRN_INIT --profile dev --layers 2 \"$@\" > log; }
    said() { grep --quiet \"$1\" error || { cat error; exit 1; }; }
    silent() { ! grep again error || exit 1; }
    whole() { firn verify $1 --quiet; diff --recursive first $1; }";

#[test]
fn c_2_a_changed_layer_of_the_cache_is_packed_again() {
    let work = tempfile::tempdir().unwrap();
    let system = Fake::new().in_store();
    let run = |script: &str| succeeds(bash(work.path(), &system, &format!("{BUILD}\n{script}")));
    run("build --out first --layer-cache cache 2> error; silent; [ $(ls first/nix-store* | wc -l) = 2 ]");
    let layer = fs::read_dir(work.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    for change in [flip, |path: &Path| fs::write(path, "").unwrap(), |path: &Path| fs::remove_file(path).unwrap()] {
        for name in ["image", "description.json"] {
            change(&layer.join(name));
            run(&format!(
                "build --out second --layer-cache cache 2> error; whole second
                [ {name} != image ] || said 'image is damaged (.*): packing this layer again'
                build --out second --layer-cache cache 2> error; silent; whole second"
            ));
        }
    }
}

#[test]
fn c_2_a_cache_that_nothing_can_be_added_to_and_one_that_others_use() {
    let work = tempfile::tempdir().unwrap();
    let script = format!(
        "{BUILD}
        build --out first --layer-cache cache
        # Read-only: once without the layer, once with it.
        mkdir read-only full
        mount --bind read-only read-only; mount --options remount,bind,ro read-only
        build --out second --layer-cache read-only 2> error; said 'The next build has to pack a layer again: keeping a layer in'
        umount read-only; whole second
        mount --bind cache read-only; mount --options remount,bind,ro read-only
        build --out second --layer-cache read-only 2> error; silent
        umount read-only; whole second
        mount --types tmpfs --options size=400k tmpfs full
        build --out second --layer-cache full 2> error; said 'No space left on device'; [ $(ls -A full | wc -l) = 0 ]
        umount full; whole second
        # A file and a directory of another program are no cache.
        ! build --out third --layer-cache error 2> error || exit 1
        said 'opening the layer cache error; give a directory of yours with --layer-cache'; [ ! -e third ]
        # Two builds at once with a new cache, then one that is killed, and one with its output in its cache.
        build --out second --layer-cache new & build --out third --layer-cache new; wait $!
        whole second; whole third; [ $(ls -A new | wc -l) = 1 ]
        rm -r new
        $program build $system --store-content $large --firn-init $FIRN_INIT --quiet --layers 2 --out fourth --layer-cache new &
        sleep 0.3; kill -KILL $!; wait $! || :
        build --out fourth --layer-cache new; whole fourth; [ $(ls -A new | wc -l) = 1 ]
        build --out same --layer-cache same; build --out same --layer-cache same
        find same -mindepth 1 -type d -exec rm -r {{}} +
        firn verify same --quiet"
    );
    // Mounts of a script that fails end with their namespace.
    let script =
        format!("unshare --mount bash -euc 'firn() {{ $program \"$@\"; }}\n{}'", script.replace('\'', "'\\''"));
    succeeds(bash(work.path(), &Fake::new().in_store(), &script));
}

#[test]
fn c_2_a_changed_file_of_a_build_is_not_packed() {
    let work = tempfile::tempdir().unwrap();
    let run = |script: &str| bash(work.path(), Path::new("/nonexistent"), script).output().unwrap();
    let make = "firn build $system --firn-init $FIRN_INIT --profile dev --quiet --out build";
    succeeds(bash(work.path(), &Fake::new().in_store(), make));
    for (command, files) in [
        ("ipxe build --out out", &["bzImage", "initrd"][..]),
        ("ipxe build --split --out out", &["bzImage", "initrd", "nix-store.squashfs"]),
        ("kexec build --out out", &["bzImage", "initrd"]),
        ("tarball build --out out", &["bzImage", "initrd"]),
        ("uki build --out out", &["bzImage", "initrd"]),
    ] {
        for name in files {
            let path = work.path().join("build").join(name);
            flip(&path);
            let output = run(&format!("firn {command} --quiet"));
            flip(&path);
            let said = String::from_utf8(output.stderr).unwrap();
            let expected = format!("build/{name} was changed since the build (its SHA-256 is ");
            let right = said.contains(&expected) && said.ends_with("): build it again\n") && said.lines().count() == 1;
            assert!(output.status.code() == Some(1) && right, "{command}: {said}");
            let left = run("ls -A out || :");
            assert_eq!(String::from_utf8(left.stdout).unwrap(), "", "{command}");
        }
        let output = run(&format!("firn {command} --quiet; rm -r out"));
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn c_7_a_pipe_in_the_place_of_a_file_of_a_build_keeps_nobody_waiting() {
    let work = tempfile::tempdir().unwrap();
    let make = "
        firn build $system --firn-init $FIRN_INIT --profile dev --quiet --out build
        cp -r build saved";
    succeeds(bash(work.path(), &Fake::new().in_store(), make));
    let script = "
        ! timeout 20 $program $command > said 2>&1 || exit 1
        grep --quiet 'is no regular file' said || { echo \"$command, pipe $pipe: $(cat said)\" >&2; exit 1; }";
    for (pipe, commands) in [
        ("manifest.json", &["ipxe", "kexec", "uki", "tarball", "boot", "verify", "inspect", "diff build"][..]),
        ("bzImage", &["ipxe", "kexec", "uki", "tarball", "verify", "inspect", "diff build"]),
        ("initrd", &["ipxe", "kexec", "uki", "tarball", "verify", "inspect", "diff build", "ls", "unpack"]),
    ] {
        for command in commands {
            let output = if *command == "unpack" { "out" } else { "" };
            let output = if ["ipxe", "kexec", "uki", "tarball"].contains(command) { "--out out" } else { output };
            let replace =
                format!("rm build/{pipe}; mkfifo build/{pipe}; pipe={pipe} command='{command} build {output}'");
            let restore = format!("rm build/{pipe}; cp saved/{pipe} build");
            succeeds(bash(work.path(), Path::new("/nonexistent"), &format!("{replace}{script}\n{restore}")));
        }
    }
    // Pipes in the places of files that an output replaces, or has to look at.
    for (pipes, words) in [("netboot.ipxe kexec-boot", "kexec-boot is no regular file"), ("netboot.ipxe", "")] {
        let script = format!(
            "rm -rf tree; mkdir tree; cd tree; mkfifo {pipes}; cd ..; timeout 20 $program kexec build --out tree"
        );
        let output = bash(work.path(), Path::new("/nonexistent"), &script).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() == words.is_empty() && said.contains(words), "{said}");
    }
}
