//! The plan: what can be read can be written, and is read the same.
#![no_main]

use firn::contract::plan::{Plan, VERSION};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &str| {
    if let Ok(plan) = Plan::from_json(json) {
        assert_eq!(plan.version, VERSION);
        assert_eq!(Plan::from_json(&plan.to_json().unwrap()).unwrap(), plan);
    }
});
