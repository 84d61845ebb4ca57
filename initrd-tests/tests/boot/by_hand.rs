//! Kernels that `initrd-tests/kernels/run` builds, because Debian has none of their kinds. The script runs these tests.

use super::fixture::{Fixture, boot, run};
use super::processors::boots_with;
use qemu::Machine;
use std::process::Command;

static NO_MODULES: Fixture = Fixture::new("6.12-no-modules");
static BUILT_IN: Fixture = Fixture::new("6.12-built-in").with_threads(",threads=8");

/// Makes a module of tests for each kernel.
macro_rules! kernels {
    ($($kernel:ident: $fixture:ident, $nixos_init:literal;)*) => {$(
        mod $kernel {
            use super::super::fixture::Fixture;

            static NIXOS_INIT: Fixture = Fixture::of_kind("nixos-init", $nixos_init, "activation");

            #[test]
            #[ignore = "by hand: run by initrd-tests/kernels/run"]
            fn b_11_all_claims_with_four_processors() {
                super::all_claims_with_four_processors(&super::$fixture);
            }

            #[test]
            #[ignore = "by hand: run by initrd-tests/kernels/run"]
            fn b_11_modules_that_are_built_in() {
                super::modules_that_are_built_in(&super::$fixture);
            }

            #[test]
            #[ignore = "by hand: run by initrd-tests/kernels/run"]
            fn b_11_the_root_is_on_a_disk() {
                super::the_root_is_on_a_disk(&super::$fixture);
            }

            #[test]
            #[ignore = "by hand: run by initrd-tests/kernels/run"]
            fn b_11_a_system_for_nixos_init() {
                super::a_system_for_nixos_init(&NIXOS_INIT);
            }
        }
    )*};
}

kernels! {
    linux_6_12_built_in: BUILT_IN, "6.12-built-in";
    linux_6_12_no_modules: NO_MODULES, "6.12-no-modules";
}

fn all_claims_with_four_processors(fixture: &Fixture) {
    let booted = boots_with(fixture, 4);
    // The squashfs that takes threads=multi shows twice the number of processors. The other one refuses the option.
    let refused = booted.report().dmesg.iter().any(|line| line.text.contains("threads=multi"));
    assert_eq!(refused, fixture.threads.is_empty(), "{:#?}", booted.report().dmesg);
}

fn modules_that_are_built_in(fixture: &Fixture) {
    let mut machine = Machine::of_build(&fixture.build().directory).unwrap();
    machine.append("firn.modules=loop,virtio-blk,no_such modprobe.blacklist=overlay probe=facts");
    let report = boot(&machine).unwrap();
    // A kernel that can load modules could have this one in another ramdisk.
    let warnings = report.boot["warnings"].as_array().unwrap();
    let expected: &[&str] =
        if fixture.kernel == BUILT_IN.kernel { &["The ramdisk has no module no_such,"] } else { &[] };
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.as_str().unwrap().starts_with(expected), "{warnings:#?}");
    }
}

fn the_root_is_on_a_disk(fixture: &Fixture) {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    run(Command::new("/sbin/mkfs.ext4").args(["-q", "-L", "state"]).arg(&disk).arg("64M")).unwrap();
    let mut machine = Machine { disks: vec![disk], ..Machine::of_build(&fixture.build().directory).unwrap() };
    machine.append("boot.persistence=LABEL=state probe=verify,persistence");
    for boots in 1..=2 {
        let report = boot(&machine).unwrap();
        assert_eq!(report.boot["warnings"], serde_json::json!([]));
        assert!(report.mounts.iter().any(|mount| mount.target == "/" && mount.source == "/dev/vda"));
        assert_eq!(report.commands[1].stdout.lines().count(), boots, "{:#?}", report.commands);
    }
}

fn a_system_for_nixos_init(fixture: &Fixture) {
    let mut machine = Machine::of_build(&fixture.build().directory).unwrap();
    // The probe for an init: the kernels lack some of what systemd needs.
    machine.append(&format!("init={}/probe/init probe=activation", fixture.build().manifest.toplevel));
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    assert!(report.mounts.iter().any(|mount| mount.target == "/etc" && mount.kind == "overlay"));
}
