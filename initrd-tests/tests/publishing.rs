//! Claims about the files that `firn` leaves: those of one build, whole, and with keys in them only for their owner.

mod fake;
mod shell;

use fake::Fake;
use shell::{bash, succeeds};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A system for both formats, with a file that takes some time to pack.
fn system() -> &'static Path {
    static SYSTEM: OnceLock<PathBuf> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let fake = Fake::new();
        fake.file("kernel-modules/lib/modules/6.9/modules.builtin", "kernel/loop.ko\nkernel/erofs.ko\n");
        let numbers = (0..1_u64 << 20).map(|number| (number * number % 999_983).to_string());
        fake.file("share/large", &numbers.collect::<Vec<_>>().join(" "));
        fake.in_store()
    })
}

#[test]
fn c_8_a_directory_has_the_files_of_one_build() {
    let work = TempDir::new().unwrap();
    let script = "
        build() { firn build $system --firn-init $FIRN_INIT --profile dev --quiet --out out \"$@\"; }
        refused() { ! \"$@\" 2> error || exit 1; cat error >&2; }
        mkdir out; echo mine > out/notes; mkdir out/.firn-backup; echo mine > out/.firn-backup/notes
        build
        # As a build leaves it that was killed.
        mkdir out/.firn-abc123; echo half > out/.firn-abc123/nix-store.squashfs
        build --format erofs
        ls -A out; cat out/notes out/.firn-backup/notes
        firn verify out --quiet
        # Before anything has changed.
        sha256sum out/* > sums 2> /dev/null || :
        rm out/netboot.ipxe; mkdir out/netboot.ipxe
        refused build
        rmdir out/netboot.ipxe
        firn ramdisk $system --firn-init $FIRN_INIT --quiet --image out/nix-store.erofs --out ramdisk
        refused firn ramdisk $system --firn-init $FIRN_INIT --quiet --image out/nix-store.erofs --out out/bzImage
        build --format erofs
        firn kexec out --out tree --quiet
        refused firn ipxe tree --out out --quiet
        cp -r out other
        refused firn kexec out --out other --quiet
        sha256sum --check --quiet sums
        firn verify other --quiet";
    let output = succeeds(bash(work.path(), system(), script));
    let (files, said) = (text(output.stdout), text(output.stderr));
    let expected = ".firn-backup\nbzImage\ninitrd\nmanifest.json\nnetboot.ipxe\nnix-store.erofs\nnotes\nzero-copy.cpio\nmine\nmine\n";
    assert_eq!(files, expected);
    for words in [
        "out/netboot.ipxe is a directory, and the output has a file of this name: remove it",
        "out/bzImage is a file of the build in out, whose manifest would be wrong afterwards",
        "other has the files of firn build, whose manifest would be wrong afterwards; give another directory",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

#[test]
fn c_8_a_second_build_is_refused_at_once_and_a_hangup_after_nohup_is_not_heard() {
    let work = TempDir::new().unwrap();
    let script = "
        nohup $program build $system --firn-init $FIRN_INIT --quiet --compression xz --out out < /dev/null > log 2>&1 &
        until ls out/.firn-*/.firn-claim > /dev/null 2>&1; do sleep 0.01; done
        ! firn build $system --firn-init $FIRN_INIT --quiet --out out 2> error || exit 1
        kill -HUP $!; wait $!
        firn verify out --quiet; ls -A out; cat error >&2";
    let output = succeeds(bash(work.path(), system(), script));
    assert_eq!(
        text(output.stdout),
        "bzImage\ninitrd\nmanifest.json\nnetboot.ipxe\nnix-store.squashfs\nzero-copy.cpio\n"
    );
    let said = text(output.stderr);
    assert!(said.contains("another firn (process ") && said.contains("give another place with --out"), "{said}");
}

#[test]
fn c_9_ramdisks_with_added_files_are_for_their_owner() {
    let work = TempDir::new().unwrap();
    let script = "
        umask 022
        echo key > key; echo key | cpio --create --format=newc --quiet > keys
        build() { firn build $system --firn-init $FIRN_INIT --profile dev \"$@\" > /dev/null; }
        build --out public 2> /dev/null
        build --out secret --append keys
        build --out prepended --prepend keys 2> /dev/null
        firn ramdisk $system --image public/nix-store.squashfs --append keys --firn-init $FIRN_INIT --out ramdisk --quiet
        for build in public secret; do
            firn ipxe $build --out ipxe-$build --quiet
            firn ipxe $build --out split-$build --split --quiet
            firn kexec $build --out kexec-$build --quiet
            firn tarball $build --out $build.tar.zst --quiet
            firn uki $build --out $build.efi --quiet
        done
        stat --format '%a %n' public/initrd secret/initrd prepended/initrd ramdisk {ipxe,split}-{public,secret}/initrd \
            kexec-{public,secret}/initrd.gz {public,secret}.{tar.zst,efi} secret/bzImage
        tar --list --verbose --zstd --file secret.tar.zst | grep --count '^-rw------- .* initrd.gz'";
    let output = succeeds(bash(work.path(), system(), script));
    let listed = text(output.stdout);
    for line in listed.lines().filter(|line| line.contains(' ')) {
        let public = line.contains("public") || line.contains("bzImage");
        assert!(line.starts_with(if public { "644 " } else { "600 " }), "{line} in {listed}");
    }
    assert!(listed.lines().count() == 16 && listed.ends_with("\n1\n"), "{listed}");
    let said = text(output.stderr);
    assert!(said.contains("only its owner may read it (mode 0600)"), "{said}");
}

/// Writes to every output, and prints the files that have changed with it or that have several names.
const WRITE_TO_OUTPUTS: &str = "
    build() { firn build $system --firn-init $FIRN_INIT --profile dev --quiet \"$@\"; }
    firn image $system --profile dev --quiet --out image
    build --out first --layer-cache cache --layers 2
    build --out second --layer-cache cache --layers 2
    firn build $system --firn-init $FIRN_INIT --quiet --image image --out ready
    firn kexec first --out kexec --quiet
    firn ipxe first --out ipxe --quiet
    firn ipxe first --out split --split --quiet
    find . -type f -links +1
    find first cache image -type f -exec sha256sum {} + > sums
    for file in kexec/* ipxe/* split/* second/* ready/*; do echo key >> $file; done
    sha256sum --check --quiet sums";

#[test]
fn c_9_writing_to_an_output_changes_no_other_file() {
    let work = TempDir::new().unwrap();
    assert_eq!(text(succeeds(bash(work.path(), system(), WRITE_TO_OUTPUTS)).stdout), "");
}

#[test]
fn c_9_files_with_the_same_blocks_of_the_disk_are_no_less_apart() {
    let work = TempDir::new().unwrap();
    // The mount ends with its namespace.
    let script = format!(
        "truncate --size 400M disk; mkfs.xfs -q disk; mkdir mounted
        unshare --mount bash -euc 'firn() {{ $program \"$@\"; }}
            mount disk mounted; cd mounted; {WRITE_TO_OUTPUTS}
            filefrag -v kexec/bzImage ipxe/initrd ready/nix-store.squashfs | grep --count shared
            chmod 600 first/initrd; firn kexec first --out private --quiet; stat --format %a private/initrd.gz'"
    );
    let output = text(succeeds(bash(work.path(), system(), &script)).stdout);
    let (shared, mode) = output.trim().split_once('\n').unwrap();
    assert!(shared.parse::<u32>().unwrap() >= 3 && mode == "600", "{output}");
}

/// Kills 120 builds, each at another moment of its run, and checks the directory after each.
#[test]
#[ignore = "slow: run by initrd-tests/run --all"]
fn c_8_builds_that_are_killed_leave_a_whole_directory() {
    let work = TempDir::new().unwrap();
    let script = "
        build() { firn build $system --firn-init $FIRN_INIT --profile dev --quiet --out out \"$@\"; }
        files() { (cd out; sha256sum $(ls)) | sha256sum; }
        build --format erofs; erofs=$(files)
        start=$(date +%s%N); build; all=$((($(date +%s%N) - start) / 1000)); squashfs=$(files)
        old=0 new=0
        for ((kill = 0; kill < 120; kill++)); do
            # From the one format to the other, so that the names differ, too.
            format=$((kill % 2)); formats=(erofs squashfs)
            before=$(files)
            $program build $system --firn-init $FIRN_INIT --profile dev --quiet --out out --format ${formats[format]} 2> /dev/null &
            # Half of the kills are near the end.
            moment=$((kill % 4 < 2 ? RANDOM * all / 32768 : all * 3 / 4 + RANDOM * all / 2 / 32768))
            sleep $(printf '%d.%06d' $((moment / 1000000)) $((moment % 1000000)))
            kill -KILL $! 2> /dev/null || :; wait $! 2> /dev/null || :
            firn verify out --quiet
            case $(files) in
                \"$before\") old=$((old + 1)) ;;
                \"$erofs\" | \"$squashfs\") new=$((new + 1)) ;;
                *) ls -la out; exit 1 ;;
            esac
        done
        build; ls -A out
        echo $old old, $new new >&2";
    let output = succeeds(bash(work.path(), system(), script));
    assert_eq!(
        text(output.stdout),
        "bzImage\ninitrd\nmanifest.json\nnetboot.ipxe\nnix-store.squashfs\nzero-copy.cpio\n"
    );
    eprintln!("{}", text(output.stderr));
}
