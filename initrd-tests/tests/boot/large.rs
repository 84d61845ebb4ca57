//! Large stores: of many paths, and of more bytes than the machine has memory.

use super::fixture::{Build, Fixture, boot, pack_with, run, with_appended_to};
use super::{LINUX_6_1, LINUX_7};
use firn::build::options::BuildOptions;
use firn::build::store::packing::Packing;
use firn::build::system::closure::StoreSelection;
use qemu::Machine;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the filler with these arguments, and packs it with a system.
fn filled(fixture: &Fixture, arguments: &[&str], directory: PathBuf, max_image: u64) -> (Build, String) {
    let mut nix_build = Command::new("nix-build");
    nix_build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu/filler.nix")).args(["--no-out-link"]);
    for setting in ["substituters", "build-users-group"] {
        nix_build.args(["--option", setting, ""]);
    }
    let filler = run(nix_build.args(["--option", "sandbox", "false"]).args(arguments)).unwrap().trim().to_owned();
    let selection = StoreSelection { added: vec![filler.clone().into()], ..StoreSelection::default() };
    let build = pack_with(&fixture.build().manifest.toplevel, directory, |options| BuildOptions {
        selection,
        packing: Packing { max_image, ..options.packing },
        ..options
    });
    (build.unwrap(), filler)
}

#[test]
#[ignore = "slow: run by initrd-tests/run --all"]
fn b_11_ten_thousand_store_paths() {
    let work = tempfile::tempdir().unwrap();
    let paths = ["--arg", "paths", "10000", "--arg", "bytes", "0"];
    let (build, _) = filled(&LINUX_6_1, &paths, work.path().join("build"), u64::MAX);
    assert!(build.manifest.store_paths > 10_000, "{:?}", build.manifest);
    let mut machine = Machine { counted: true, memory_mib: 512, ..Machine::of_build(&build.directory).unwrap() };
    machine.append("probe=verify");
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    assert_eq!(report.commands[0].status, Some(0), "{:#?}", report.commands);
    assert!(!report.commands[0].stderr.contains("/nix/store/"), "{:#?}", report.commands);

    // The database is copied: 1 µs are a thousand instructions. Nix would need 1.7 million µs.
    let steps = report.boot["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["name"] == "registration").unwrap();
    let microseconds = step["end"].as_u64().unwrap() - step["start"].as_u64().unwrap();
    assert!(microseconds < 50_000, "{step:#}");
}

#[test]
#[ignore = "slow: run by initrd-tests/run --all"]
fn b_11_a_store_of_12_gb_on_a_machine_with_1_gib() {
    let work = tempfile::tempdir().unwrap();
    let huge = ["--arg", "paths", "0", "--arg", "bytes", "0", "--arg", "huge", "[ 7000000000 5000000000 ]"];
    // The system alone needs more than one image of this size.
    let (build, filler) = filled(&LINUX_7, &huge, work.path().join("build"), 48 << 20);
    assert!(build.manifest.store_bytes > 12_000_000_000, "{:?}", build.manifest);
    assert!(build.manifest.images.len() > 1, "{:?}", build.manifest);
    let script = format!(
        "for path in $(cat {filler}/bytes); do nix-store --query --size $path; stat --format %s $path; head -c 4 $path; tail -c 4 $path; done"
    );
    let script = format!("mkdir -p firn/root && echo '{script}' > firn/root/firn-test");
    let mut machine = with_appended_to(&build, work.path(), &script);
    machine.memory_mib = 1024;
    machine.append("probe=host");
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    let said = &report.commands[0];
    // A NAR has 112 bytes more, and is padded to eight.
    assert_eq!(said.stdout, "7000000112\n7000000000\nthe end\n5000000112\n5000000000\nthe end\n", "{said:#?}");
}
