//! Programs that the build needs: a firn-init that cannot be PID 1, and a packer that fails.

use crate::attempt::{options, packing, refused};
use crate::fake::Fake;
use firn::build::options::BuildOptions;
use firn::build::store::packing::{Format, Packing};

#[test]
fn firn_init() {
    let out = tempfile::tempdir().unwrap();
    let system = Fake::new().in_store();
    let with = |firn_init: &str| BuildOptions { firn_init: firn_init.into(), ..options(&system, out.path()) };
    refused(
        &with("/nonexistent/firn-init"),
        &["reading firn-init at /nonexistent/firn-init", "cargo build", "No such file"],
    );
    refused(&with("/bin/bash"), &["/bin/bash cannot be PID 1", "linked dynamically", "crt-static"]);
    refused(&with("/etc/passwd"), &["/etc/passwd cannot be PID 1", "not a 64-bit ELF"]);
}

#[test]
fn mksquashfs_that_fails() {
    let out = tempfile::tempdir().unwrap();
    let system = Fake::new().in_store();
    let bad = BuildOptions { packing: packing("zstd -Xcompression-level 99"), ..options(&system, out.path()) };
    refused(&bad, &["mksquashfs failed", "-Xcompression-level invalid, it should be 1 <= n <= 22"]);
    let bad = BuildOptions {
        packing: Packing { block_size: Some(12345), ..packing("none") },
        ..options(&system, out.path())
    };
    refused(&bad, &["mksquashfs failed", "block size not power of two"]);
    let missing = BuildOptions { modules: vec!["squash".into()], ..options(&system, out.path()) };
    refused(&missing, &["the kernel 6.9 has no module squash", "did you mean squashfs?"]);
    let erofs = Packing { format: Format::Erofs, ..packing("none") };
    let words = ["the kernel 6.9 has no erofs, neither as a module nor built in"];
    refused(&BuildOptions { packing: erofs, ..options(&system, out.path()) }, &words);
}
