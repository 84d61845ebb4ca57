//! A ramdisk that `firn build` did not make: no plan, the names of nixpkgs, packed by cpio.

use super::fixture::{Fixture, boot, run};
use super::{LINUX_6_1, LINUX_7};
use qemu::Machine;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[test]
fn firn_init_can_be_dropped_into_any_ramdisk() {
    dropped_into_a_ramdisk(&LINUX_6_1, "ko");
}

#[test]
fn firn_init_can_be_dropped_into_a_ramdisk_with_compressed_modules() {
    // The kernel decompresses them: this one is built with MODULE_DECOMPRESS.
    dropped_into_a_ramdisk(&LINUX_7, "ko.xz");
}

fn dropped_into_a_ramdisk(fixture: &Fixture, suffix: &str) {
    let build = fixture.build();
    let work = tempfile::tempdir().unwrap();
    let tree = work.path().join("tree");
    for directory in ["dev", "nix/store"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    for (name, major, minor) in [("console", "5", "1"), ("null", "1", "3")] {
        run(Command::new("mknod").arg(tree.join("dev").join(name)).args(["c", major, minor])).unwrap();
    }
    fs::copy(std::env::var_os("FIRN_INIT").unwrap(), tree.join("init")).unwrap();
    // As in nixpkgs' ramdisk, the name of the image is a symlink into a store in the ramdisk.
    fs::copy(build.directory.join("nix-store.squashfs"), tree.join("nix/store/x-squashfs.img")).unwrap();
    symlink("/nix/store/x-squashfs.img", tree.join("nix-store.squashfs")).unwrap();

    // The whole modules.dep, but only the modules that firn-init needs.
    let release = Path::new("lib/modules").join(&build.manifest.kernel_release);
    let modules = Path::new(&build.manifest.toplevel).join("kernel-modules").join(&release);
    let files = ["drivers/block/loop", "fs/squashfs/squashfs", "fs/overlayfs/overlay"];
    let files = files.map(|file| format!("kernel/{file}.{suffix}"));
    for file in ["modules.dep", "modules.builtin"].into_iter().chain(files.iter().map(String::as_str)) {
        let target = tree.join(&release).join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(modules.join(file), target).unwrap();
    }
    let initrd = work.path().join("initrd");
    let pack = "cd \"$0\" && find . -print0 | cpio --null --create --format=newc --quiet > \"$1\"";
    run(Command::new("sh").args(["-c", pack]).arg(&tree).arg(&initrd)).unwrap();

    let mut machine = Machine { initrd: Some(initrd), ..Machine::of_build(&build.directory).unwrap() };
    machine.append("probe=facts");
    let report = boot(&machine).unwrap();
    assert!(report.dmesg.iter().any(|line| line.text.contains("No plan at /firn/plan.json")));
    assert_eq!(report.paths["/nix/var/nix/profiles/system"].as_ref(), Some(&build.manifest.toplevel));
    assert_eq!(report.loop_files["loop0"], "/nix/store/x-squashfs.img (deleted)");
}
