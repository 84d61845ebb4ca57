//! Store images of other kinds than the one that most tests boot.

use super::fixture::{Fixture, boot, pack_with};
use super::{LINUX_6_1, LINUX_6_12, LINUX_7};
use firn::image::{Compressor, Format, Options, Packing, Profile, Segments};
use qemu::Machine;
use std::path::Path;

/// Boots the system of a fixture with its store in an erofs. Debian's kernels have `EROFS_FS_BACKED_BY_FILE` from 6.12 on.
fn erofs(fixture: &Fixture, source: &str) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("boot-erofs-{}", fixture.kernel));
    let packing = Packing { format: Format::Erofs, profile: Profile::Dev, ..Packing::default() };
    let build =
        pack_with(&fixture.build().manifest.toplevel, directory, |options| Options { packing, ..options }).unwrap();
    let mut machine = Machine::of_build(&build.directory).unwrap();
    machine.append("probe=verify");
    let report = boot(&machine).unwrap();
    let lower = report.mounts.iter().find(|mount| mount.target == "/nix/.ro-store").unwrap();
    assert_eq!((lower.kind.as_str(), lower.source.as_str()), ("erofs", source));
    let [verify] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert!(verify.status == Some(0) && !verify.stderr.contains("/nix/store/"), "{verify:#?}");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

#[test]
fn an_erofs_by_a_loop_device() {
    erofs(&LINUX_6_1, "/dev/loop0");
}

#[test]
fn an_erofs_from_its_file() {
    erofs(&LINUX_6_12, "/nix-store.erofs");
    erofs(&LINUX_7, "/nix-store.erofs");
}

#[test]
fn ramdisks_of_every_compressor() {
    for compressor in [Compressor::Xz, Compressor::Gzip, Compressor::Lz4, Compressor::None] {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-compressor");
        let segments = Segments { compressor, ..Segments::default() };
        let toplevel = &LINUX_6_1.build().manifest.toplevel;
        let build = pack_with(toplevel, directory, |options| Options { segments, ..options }).unwrap();
        let mut machine = Machine::of_build(&build.directory).unwrap();
        machine.append("firn.register=none probe=facts");
        let report = boot(&machine).unwrap_or_else(|error| panic!("{compressor:?}: {error:#}"));
        assert_eq!(report.boot["warnings"], serde_json::json!([]), "{compressor:?}");
    }
}
