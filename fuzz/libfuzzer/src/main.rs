//! libFuzzer around the target that the variable `FIRN_FUZZ` names.
#![no_main]

use firn_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;
use std::env;
use std::sync::LazyLock;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("FIRN_FUZZ").expect("FIRN_FUZZ names no target");
    TARGETS.iter().find(|target| target.0 == name).expect("FIRN_FUZZ names an unknown target").1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
