//! Builds of small systems that must fail.

use firn::build::build;
use firn::build::options::BuildOptions;
use firn::build::store::packing::Packing;
use firn::host::progress::Progress;
use std::path::Path;
use std::{env, fs};

/// The options of an uncompressed build.
pub fn options(toplevel: &Path, out: &Path) -> BuildOptions {
    let firn_init = env::var_os("FIRN_INIT").expect("start the tests with ./initrd-tests/run");
    BuildOptions { packing: packing("none"), ..BuildOptions::new(toplevel, out, firn_init) }
}

/// A store image in the default format, compressed in this way.
pub fn packing(compression: &str) -> Packing {
    Packing { compression: Some(compression.parse().unwrap()), ..Packing::default() }
}

/// Checks that a build fails, that the error contains all of `words`, and that the output directory stays empty.
pub fn refused(options: &BuildOptions, words: &[&str]) {
    let error = format!("{:#}", build(options, Progress::Quiet).expect_err("the build should have failed"));
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
    let left: Vec<_> = fs::read_dir(&options.out).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
