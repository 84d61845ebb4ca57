//! PID 1 is built for musl, and every other test boots that one. A build with glibc, for build machines without the target, boots too.

use super::LINUX_6_1;
use super::fixture::{boot, pack_with};
use firn::build::options::BuildOptions;
use qemu::Machine;
use std::path::Path;

#[test]
fn pid_1_with_glibc_boots() {
    let firn_init =
        std::env::var_os("FIRN_INIT_GLIBC").expect("FIRN_INIT_GLIBC; start the tests with ./initrd-tests/run");
    let program = std::fs::read(&firn_init).unwrap();
    assert!(program.windows(5).any(|bytes| bytes == b"GLIBC"), "it is one with glibc");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-glibc");
    let toplevel = &LINUX_6_1.build().manifest.toplevel;
    let build =
        pack_with(toplevel, directory, |options| BuildOptions { firn_init: firn_init.into(), ..options }).unwrap();
    let mut machine = Machine::of_build(&build.directory).unwrap();
    machine.append("probe=facts");
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["init"], build.manifest.init);
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}
