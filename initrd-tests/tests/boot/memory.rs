//! The limits of the memory that the running system may fill.

use super::LINUX_6_1;
use super::fixture::{Build, boot, pack_with, run};
use firn::build::options::BuildOptions;
use qemu::Machine;
use std::fs;
use std::process::Command;

/// Fills the root and the writable layer of the store on a machine with this memory, in MiB. The system stays usable.
fn is_filled(build: &Build, memory_mib: u32) {
    let mut machine = Machine { memory_mib, ..Machine::of_build(&build.directory).unwrap() };
    machine.append("probe=fill");
    let report = boot(&machine).unwrap();
    let [large, _, small, empty, free] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    for command in [large, small, empty] {
        assert_eq!(command.stdout.matches("No space left on device").count(), 2, "{command:#?}");
    }
    assert!(!report.dmesg.iter().any(|line| line.text.contains("Out of memory")), "{free:#?}");
}

#[test]
fn a_8_both_layers_are_filled_on_512_mib() {
    is_filled(LINUX_6_1.build(), 512);
}

#[test]
fn a_8_both_layers_are_filled_on_768_mib_with_two_images() {
    let work = tempfile::tempdir().unwrap();
    let tree = work.path().join("tree");
    fs::create_dir(&tree).unwrap();
    // Noise: 64 MiB that no compression makes smaller.
    run(Command::new("openssl").args(["rand", "-out"]).arg(tree.join("noise")).arg((64 << 20).to_string())).unwrap();
    let large = work.path().join("large");
    run(Command::new("mksquashfs").arg(&tree).arg(&large).args(["-quiet", "-no-progress", "-noD"])).unwrap();
    let images = vec![large, LINUX_6_1.build().directory.join("nix-store.squashfs")];
    let toplevel = &LINUX_6_1.build().manifest.toplevel;
    let build = pack_with(toplevel, work.path().join("build"), |options| BuildOptions { images, ..options }).unwrap();
    is_filled(&build, 768);
}
