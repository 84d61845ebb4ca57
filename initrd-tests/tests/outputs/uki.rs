//! Unified kernel images, of firn and of others: the readers see the ramdisk that the kernel gets.

use super::{system, text};
use crate::shell::{bash, succeeds};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// Runs a script in a directory and returns its standard output.
fn said(work: &Path, script: &str) -> String {
    let output = succeeds(bash(work, system(), script));
    text(output.stdout)
}

/// They differ in the mark of the store image, which is a file of the ramdisk for all readers.
#[test]
fn d_1_one_ramdisk_for_zero_copy_is_read_as_the_build() {
    let work = TempDir::new().unwrap();
    let script = "
        firn build $system --out build --quiet --firn-init $FIRN_INIT
        firn uki build --out own.efi --quiet
        firn kexec build --out tree --quiet
        firn tarball build --out . --quiet --prefix tarred && tar --extract --zstd --file *.tar.zst
        diff -r tree tarred
        firn unpack build of-build
        for file in own.efi tree/initrd.gz; do
            diff <(firn ls build) <(firn ls $file | grep -v '^d.* nix-store.squashfs$' | grep -v ' nix-store.squashfs/zero-copy$')
            test $(firn ls $file | grep -c ' nix-store.squashfs/zero-copy$') = 1
            firn unpack $file unpacked
            diff -r --no-dereference --exclude dev of-build unpacked
            rm -r unpacked
            cmp <(firn cat $file nix-store.squashfs) build/nix-store.squashfs
        done
        cmp <(cat build/zero-copy.cpio build/initrd) tree/initrd.gz
        for directory in build tree tarred; do firn verify $directory; done
        printf x | dd of=build/zero-copy.cpio bs=1 seek=300 conv=notrunc status=none
        firn verify build && exit 1
        firn kexec build --out other && exit 1
        true";
    let shown = said(work.path(), script);
    assert!(shown.contains("zero-copy.cpio"), "{shown}");
}

#[test]
fn c_7_the_uki_of_a_build_is_read_as_the_build() {
    let work = TempDir::new().unwrap();
    let script = "
        firn build $system --out build --quiet --firn-init $FIRN_INIT --image-placement copy
        firn uki build --out own.efi --quiet --append 'a.b=\"c d\"'
        for command in ls 'ls --json'; do diff <(firn $command build) <(firn $command own.efi); done
        cmp <(firn cat build firn/plan.json) <(firn cat own.efi firn/plan.json)
        firn unpack build of-build; firn unpack own.efi of-own && diff -r --no-dereference of-build of-own
        firn diff build own.efi --json > differences
        firn inspect build --json > build.json && firn inspect own.efi --json > own.json
        firn inspect own.efi";
    let shown = said(work.path(), script);
    let json =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(work.path().join(name)).unwrap()).unwrap() };
    let (build, own, differences) = (json("build.json"), json("own.json"), json("differences"));
    assert_eq!(own["is"], "uki");
    for part in ["segments", "plan", "modules", "kernel_release"] {
        assert_eq!(own["ramdisk"][part], build["ramdisk"][part], "{part}");
    }
    // The store image lies in the file of the image, and its paths can be read there.
    assert_eq!(own["ramdisk"]["images"][0]["store_paths"], build["ramdisk"]["images"][0]["store_paths"]);
    assert!(!build["ramdisk"]["images"][0]["store_paths"].as_array().unwrap().is_empty());
    assert!(own["cmdline"].as_str().unwrap().ends_with(" quiet a.b=\"c d\""), "{}", own["cmdline"]);
    assert_eq!(differences["store_paths"]["added"].as_array().map(Vec::len), Some(0), "{differences}");
    for expected in
        ["a unified kernel image for x86-64", ", not signed", "  .linux  ", "command line: init=/nix/store/"]
    {
        assert!(shown.contains(expected), "no {expected} in {shown}");
    }
}

/// Makes `foreign.efi` as before there was ukify: by objcopy. It has microcode, a ramdisk, and texts with control
/// characters. `twice.efi` has one section of a name before another.
const FOREIGN: &str = r#"
    archive() { cpio --create --format newc --quiet --reproducible; }
    mkdir -p kernel/x86/microcode && head -c 1000 /dev/urandom > kernel/x86/microcode/GenuineIntel.bin
    find kernel | archive > ucode
    printf 'in the ramdisk\n' > file && echo file | archive | gzip > initrd
    echo of the first > first && echo first | archive > first.cpio
    printf ' quiet\033]0;title\a a="b c"\n\0junk' > cmdline
    printf 'ID=x\nPRETTY_NAME="Red \033[31m system"\n' > osrel
    made() {
        objcopy ${FIRN_STUB-/usr/lib/systemd/boot/efi/linuxx64.efi.stub} \
            --add-section $2=$3 --change-section-vma $2=0x200000 \
            --add-section .cmdline=cmdline --change-section-vma .cmdline=0x300000 \
            --add-section .linux=$system/bzImage --change-section-vma .linux=0x2000000 \
            --add-section .ucode=ucode --change-section-vma .ucode=0x4000000 \
            --add-section .initrd=initrd --change-section-vma .initrd=0x6000000 $1
    }
    made foreign.efi .osrel osrel
    made twice.efi .other first.cpio && objcopy twice.efi --rename-section .other=.initrd --remove-section .ucode"#;

#[test]
fn c_7_a_uki_of_others_is_read_as_the_kernel_reads_it() {
    let work = TempDir::new().unwrap();
    said(work.path(), FOREIGN);
    let names = said(work.path(), "firn ls foreign.efi | awk '{ print $NF }'");
    let microcode = "kernel/x86/microcode";
    let expected = ["kernel", "kernel/x86", microcode, &format!("{microcode}/GenuineIntel.bin"), "file"].join("\n");
    assert_eq!(names.trim(), expected);
    let script = format!(
        "firn cat foreign.efi file; firn unpack foreign.efi out >&2; cmp {microcode}/GenuineIntel.bin out/{microcode}/GenuineIntel.bin"
    );
    assert_eq!(said(work.path(), &script), "in the ramdisk\n");
    let shown = said(work.path(), "firn inspect foreign.efi");
    assert!(shown.lines().any(|line| line == "  command line: quiet ]0;title  a=\"b c\""), "{shown}");
    assert!(shown.contains("system: Red \\u{1b}[31m system"), "{shown}");
    assert!(!shown.contains(|letter: char| letter.is_control() && letter != '\n'), "{shown:?}");
    // Of two sections of a name the stub reads the first.
    let twice = said(work.path(), "firn ls twice.efi; firn inspect twice.efi");
    assert!(twice.lines().next().unwrap().ends_with(" first"), "{twice}");
    let of_initrd: Vec<_> = twice.lines().filter(|line| line.starts_with("  .initrd ")).collect();
    assert!(
        matches!(*of_initrd, [_, second] if second.ends_with("  not read: another one takes its place")),
        "{of_initrd:?}"
    );
}
