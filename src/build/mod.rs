//! The build: from the closure of a system to the files that boot it. The sequence is here; each step has a room or a file.

pub mod inputs;
pub mod options;
pub mod output;
pub mod ramdisk;
pub mod store;
pub mod system;
pub mod ways;

use crate::build::inputs::Inputs;
use crate::build::options::BuildOptions;
use crate::build::output::directory::{self, Directory};
use crate::build::output::manifest;
use crate::build::ramdisk::{segments, zero_copy};
use crate::build::store::{divide, images, ready};
use crate::build::system::toplevel;
use crate::build::ways::ipxe;
use crate::build::ways::limits::{self, Loader};
use crate::contract::manifest::{FileEntry, Manifest};
use crate::contract::place::ZERO_COPY;
use crate::contract::plan::MAX_IMAGES;
use crate::host::progress::Progress;
use anyhow::Result;
use std::io::Write;
use std::path::PathBuf;

/// Builds everything that a machine needs to boot `options.toplevel` from memory, in the directory `options.out`.
///
/// # Errors
///
/// The first input that is missing, or the first step that fails, with the next thing to do. No new file has its final name
/// then, and the files of an earlier build are untouched.
pub fn build(options: &BuildOptions, progress: Progress) -> Result<Manifest> {
    let system = toplevel::read(&options.toplevel)?;
    directory::ensure_outside(&options.out, &system.toplevel)?;
    let format = if options.images.is_empty() { options.packing.format } else { ready::format(&options.images)? };
    let inputs = Inputs::collect(&system, format, options, progress)?;
    if !options.images.is_empty() {
        ready::check(&options.images, format, &inputs.closure, progress)?;
    }
    let cmdline = system.cmdline()?;
    let booted = if inputs.zero_copy { zero_copy::cmdline(cmdline.clone())? } else { cmdline.clone() };
    limits::ensure_bootable(&booted, &system.kernel, Loader::Any)?;
    let script = ipxe::script(&booted, inputs.zero_copy, &[], "")?;

    let mut output = Directory::create(&options.out)?;
    for name in [format.file_name(), "initrd", ZERO_COPY, "bzImage", "netboot.ipxe", "manifest.json"] {
        output.ensure_no_input(name, options.inputs())?;
    }
    let database = inputs.database(&system, options, progress)?;
    let entries = if options.images.is_empty() {
        images::pack(
            &inputs.closure,
            &mut output,
            format.file_name(),
            &options.packing,
            options.layers.as_ref(),
            progress,
        )?
    } else {
        ready::link(&options.images, format, &mut output, progress)?
    };
    // Those that are given are read under the names that the user knows.
    let images = match options.images.as_slice() {
        [] => entries.iter().map(|entry| output.staged(&entry.name)).collect(),
        given => given.to_vec(),
    };

    let plan = inputs.plan(&system, options, entries, database.is_some(), progress)?;
    let Inputs { executables, modules, closure, zero_copy, .. } = inputs;
    let files = modules.files.into_iter().chain(database).collect();
    let private = options.segments.has_ready_made();
    let before_images = output.write_with("initrd", private, |out| {
        segments::write(out, &executables, files, &plan, &options.segments, &images, progress)
    })?;
    segments::warn_if_large(output.entries().last(), progress);
    segments::tell_if_private(private, progress);
    if zero_copy {
        output.write(ZERO_COPY, |out| Ok(out.write_all(&zero_copy::archive(&plan.images)?)?))?;
    }
    output.copy("bzImage", &system.kernel, progress)?;
    output.write("netboot.ipxe", |out| Ok(out.write_all(script.as_bytes())?))?;

    let manifest = manifest::describe(&system, &cmdline, &plan, before_images, &closure, output.entries())?;
    output.write("manifest.json", |out| Ok(out.write_all(manifest.to_json()?.as_bytes())?))?;
    output.publish()?;
    Ok(manifest)
}

/// Makes only the store image, as the file `options.out`. If the store needs several images, the others have numbers in
/// their names and lie beside it.
///
/// # Errors
///
/// Those of [`build`].
pub fn store_image(options: &BuildOptions, progress: Progress) -> Result<Vec<FileEntry>> {
    let system = toplevel::read(&options.toplevel)?;
    directory::ensure_outside(&options.out, &system.toplevel)?;
    let closure = options.selection.collect(&system, progress)?.closure;
    let (mut output, name) = Directory::of_file(&options.out, options.packing.format.file_name())?;
    output.ensure_no_input(&name, options.inputs())?;
    let images = images::pack(&closure, &mut output, &name, &options.packing, options.layers.as_ref(), progress)?;
    let files = output.publish()?;
    let beside = |name| if options.out.is_dir() { options.out.join(name) } else { options.out.with_file_name(name) };
    let others = (images.len()..MAX_IMAGES).map(|number| beside(divide::numbered(&name, number)));
    for other in others.filter(|other| other.exists()) {
        progress.say(&format!(
            "{} is none of these images: if it is from an earlier run, delete it, since it does not belong to this store",
            other.display()
        ));
    }
    Ok(files)
}

/// Makes only the ramdisk, as the file `options.out`, for store images from an earlier run, the lowest layer first. With
/// `split` the images are not in it: the boot loader has to add them, as further ramdisks.
///
/// # Errors
///
/// Those of [`build`], and a file that is no store image.
pub fn ramdisk(options: &BuildOptions, images: &[PathBuf], split: bool, progress: Progress) -> Result<Vec<FileEntry>> {
    let system = toplevel::read(&options.toplevel)?;
    directory::ensure_outside(&options.out, &system.toplevel)?;
    let format = ready::format(images)?;
    let inputs = Inputs::collect(&system, format, options, progress)?;
    ready::check(images, format, &inputs.closure, progress)?;
    let (mut output, name) = Directory::of_file(&options.out, "initrd")?;
    output.ensure_no_input(&name, options.inputs().chain(images.iter().map(PathBuf::as_path)))?;
    let database = inputs.database(&system, options, progress)?;
    let plan =
        inputs.plan(&system, options, ready::described(images, format, progress)?, database.is_some(), progress)?;
    let Inputs { executables, modules, .. } = inputs;
    let files = modules.files.into_iter().chain(database).collect();
    let images = if split { &[] } else { images };
    let private = options.segments.has_ready_made();
    output.write_with(&name, private, |out| {
        segments::write(out, &executables, files, &plan, &options.segments, images, progress)
    })?;
    segments::warn_if_large(output.entries().last(), progress);
    segments::tell_if_private(private, progress);
    output.publish()
}
