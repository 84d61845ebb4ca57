//! The files that describe a build, and programs for UEFI.

use firn::contract::manifest::Manifest;
use firn::contract::nixos_init::Config;
use firn::contract::plan::{Plan, VERSION};
use firn::formats::pe::Program;
use firn::formats::pe::added::{NewSection, with_sections};
use firn::formats::uki::systemd_program;
use firn::inspect::uki::Uki;
use std::io::Cursor;

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

/// Sections lie behind a program, one after the other, and the result is a unified kernel image.
pub fn pe(program: &[u8]) {
    let length = program.len() as u64;
    let sections = [(".cmdline", 10), (".initrd", 5), (".linux", 70_000)];
    let new = sections.map(|(name, bytes)| NewSection { name, bytes, is_code: name == ".linux" });
    if let Ok(parsed) = Program::of_whole(program, length)
        && let Ok((mut made, places)) = with_sections(program.to_vec(), &parsed, &new)
    {
        assert!(made.len() <= program.len() && places.len() == sections.len());
        let mut end = made.len() as u64;
        for (place, (_, bytes)) in places.iter().zip(sections) {
            assert!(place.offset >= end && place.end >= place.offset + bytes);
            end = place.end;
        }
        made.resize(usize::try_from(end).unwrap(), b'x');
        let uki = Uki::read(Cursor::new(&made)).unwrap();
        assert_eq!((uki.sections.len(), uki.cmdline.as_str()), (parsed.sections.len() + 3, "xxxxxxxxxx"));
        assert_eq!(uki.kernel_bytes, 70_000);
    }
    if let Ok(uki) = Uki::read(Cursor::new(program)) {
        assert!(uki.ramdisk.iter().all(|piece| piece.offset + piece.bytes <= length));
        assert!(!uki.cmdline.contains('\0'));
        assert!(uki.profiles.iter().all(|profile| profile.cmdline.trim_matches(' ') == profile.cmdline));
        drop(uki.system());
    }
    assert!(systemd_program(program).is_none_or(|found| found.kind.len() < program.len()));
}
