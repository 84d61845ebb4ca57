//! Store images from an earlier run that do not belong to the system.

use crate::attempt::{options, packing, refused};
use crate::fake::Fake;
use crate::store_paths::{closure_info, with_kernel};
use firn::build::options::BuildOptions;
use firn::build::store::packing::{Format, Packing};
use firn::build::store::ready;
use firn::build::system::closure::StoreSelection;
use firn::build::system::nix;
use firn::build::{build, ramdisk, store_image};
use firn::host::progress::Progress;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Makes the image of a system in a file.
fn image(system: &Path, selection: StoreSelection, packing: Packing, out: &Path) -> PathBuf {
    let options = BuildOptions { selection, packing, ..options(system, out) };
    store_image(&options, Progress::Quiet).unwrap();
    out.into()
}

#[test]
fn c_1_an_image_without_a_path_of_the_selection_is_refused() {
    let (out, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (system, kernel) = with_kernel(false);
    let info = closure_info(&[(&system, &[&kernel]), (&kernel, &[])]);
    let whole = || StoreSelection { closure_info: Some(info.path().into()), ..StoreSelection::default() };
    let without_kernel = || StoreSelection { without_kernel: true, ..whole() };
    let excluded = || StoreSelection { excluded: vec![kernel.clone()], ..whole() };
    let kernel = kernel.to_str().unwrap();
    for (format, selection) in
        [(Format::Squashfs, without_kernel()), (Format::Squashfs, excluded()), (Format::Erofs, without_kernel())]
    {
        let packing = Packing { format, ..packing("none") };
        let cut = image(&system, selection, packing, &work.path().join("image"));
        let with = |selection| BuildOptions { selection, images: vec![cut.clone()], ..options(&system, out.path()) };
        let words = [kernel, "is not in", cut.to_str().unwrap(), "--without-kernel", "pack the image again"];
        if format == Format::Squashfs {
            refused(&with(whole()), &words);
            // With the selection of the image both belong together.
            build(&with(without_kernel()), Progress::Quiet).unwrap();
            fs::remove_dir_all(out.path()).unwrap();
            let file = work.path().join("ramdisk");
            let options = BuildOptions { out: file.clone(), ..with(whole()) };
            let error = format!("{:#}", ramdisk(&options, &options.images, true, Progress::Quiet).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)) && !file.exists(), "{error}");
        } else {
            let error = ready::check(
                std::slice::from_ref(&cut),
                format,
                &nix::closure(&[kernel.into()]).unwrap(),
                Progress::Quiet,
            );
            let error = format!("{:#}", error.unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}

#[test]
fn c_2_an_image_of_another_system_is_refused() {
    let (out, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (system, other) = (Fake::new().in_store(), Fake::new().file("other", "c_2").in_store());
    let own = image(&system, StoreSelection::default(), packing("gzip"), &work.path().join("own"));
    let foreign = image(&other, StoreSelection::default(), packing("gzip"), &work.path().join("foreign"));
    let with = |image: &Path| BuildOptions { images: vec![image.into()], ..options(&system, out.path()) };
    refused(
        &with(&foreign),
        &[system.to_str().unwrap(), "is not in", foreign.to_str().unwrap(), "pack the image again"],
    );
    // Of two images that are stacked, each may have a part; twice the same one is a mistake in the command.
    let twice = BuildOptions { images: vec![own.clone(), own.clone()], ..with(&own) };
    refused(&twice, &["are both", "give each image once"]);
    build(&with(&own), Progress::Quiet).unwrap();
    fs::remove_dir_all(out.path()).unwrap();

    // Files that only begin like an image.
    let bytes = fs::read(&own).unwrap();
    let file = work.path().join("image");
    let next = "give an output of firn image";
    for (contents, words) in [
        (&b"hsqs"[..], ["is no store image that Linux mounts", next]),
        (&bytes[..96], ["it is cut off", next]),
        (&bytes[..200], ["it is cut off", next]),
        (&[&bytes[..28], &[3], &bytes[29..]].concat(), ["is no store image that Linux mounts", next]),
        (&[&bytes[..96], &vec![0; bytes.len() - 96]].concat(), ["reading the store image", next]),
    ] {
        fs::write(&file, contents).unwrap();
        refused(&with(&file), &[words[0], words[1], file.to_str().unwrap()]);
    }
    // A file with holes in place of an erofs.
    fs::write(&file, [&vec![0; 1024][..], &[0xe2, 0xe1, 0xf5, 0xe0]].concat()).unwrap();
    File::options().write(true).open(&file).unwrap().set_len(1 << 20).unwrap();
    let error = format!("{:#}", ready::check(&[file], Format::Erofs, &[], Progress::Quiet).unwrap_err());
    assert!(error.contains("reading the store image") && error.contains(next), "{error}");
}
