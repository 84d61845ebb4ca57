//! The files that describe a build, and programs for UEFI.

use firn::contract::manifest::Manifest;
use firn::contract::nixos_init::Config;
use firn::contract::plan::{Plan, VERSION};
use firn::formats::pe;

/// A plan that can be read can be written, and is read the same.
pub fn plan(json: &[u8]) {
    let Ok(json) = str::from_utf8(json) else { return };
    if let Ok(plan) = Plan::from_json(json) {
        assert_eq!(plan.version, VERSION);
        assert_eq!(Plan::from_json(&plan.to_json().unwrap()).unwrap(), plan);
    }
}

/// The same for a manifest.
pub fn manifest(json: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(json) {
        let written = manifest.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&written).unwrap(), manifest);
    }
}

/// Without the extension of nixos-init a bootspec has no unknown keys.
pub fn bootspec(json: &[u8]) {
    let Ok(json) = str::from_utf8(json) else { return };
    if let Ok((config, unknown)) = Config::parse(json) {
        assert!(config.is_some() || unknown.is_empty());
    }
}

/// Sections lie behind a program, one after the other.
pub fn pe(program: &[u8]) {
    let sections = [(".cmdline", 10), (".linux", 70_000), (".initrd", 5)];
    if let Ok((made, places)) = pe::with_sections(program.to_vec(), &sections) {
        assert_eq!((made.len(), places.len()), (program.len(), sections.len()));
        let mut end = program.len() as u64;
        for (place, (_, bytes)) in places.iter().zip(sections) {
            assert!(place.offset >= end && place.end >= place.offset + bytes);
            end = place.end;
        }
    }
    assert!(pe::systemd_stub_version(program).is_none_or(|version| program.len() > version.to_string().len()));
}
