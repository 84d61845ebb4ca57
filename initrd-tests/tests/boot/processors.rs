//! Machines with several processors.

use super::fixture::Fixture;
use super::{CLAIMS, LINUX_6_1, LINUX_6_12, LINUX_7};

/// Boots the system with this number of processors, and makes all claims about it. Returns it for more of them.
pub fn boots_with(fixture: &Fixture, processors: u32) -> Fixture {
    let booted = fixture.on_processors(processors);
    let (dmesg, expected) = (&booted.report().dmesg, format!("Brought up 1 node, {processors} CPUs"));
    assert!(dmesg.iter().any(|line| line.text.contains(&expected)), "{dmesg:#?}");
    for claim in CLAIMS {
        claim(&booted);
    }
    booted
}

// Not on Linux 7: under QEMU's translator its own patching of code (smp_text_poke) panics now and then.
#[test]
fn b_11_four_processors() {
    boots_with(&LINUX_6_12, 4);
}

#[test]
#[ignore = "slow: run by initrd-tests/run --all"]
fn b_11_four_processors_on_6_1() {
    boots_with(&LINUX_6_1, 4);
}

#[test]
#[ignore = "slow: run by initrd-tests/run --all"]
fn b_11_two_processors_on_7() {
    boots_with(&LINUX_7, 2);
}
