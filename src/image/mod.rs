//! The build: from a system's closure to what a machine boots. A file for each thing that is made.

mod cpio;
mod init;
mod ipxe;
mod manifest;
mod modules;
mod nix;
mod output;
pub mod progress;
mod ramdisk;
mod squashfs;
mod toplevel;

pub use manifest::{Entry, Manifest};
pub use squashfs::Compression;

use crate::plan::{IMAGE, Image, Plan, VERSION};
use anyhow::Result;
use progress::Progress;
use std::path::PathBuf;

/// What to build, from what, to where.
#[derive(Debug)]
pub struct Options {
    /// A NixOS toplevel, or a symlink to one, in the machine's Nix store.
    pub toplevel: PathBuf,
    /// The directory for what is made. Made if it is not there; files of other names in it are left alone.
    pub out: PathBuf,
    /// The static firn-init that becomes PID 1.
    pub firn_init: PathBuf,
    /// How mksquashfs packs the store.
    pub compression: Compression,
    /// Size of the image's blocks, bytes.
    pub block_size: u32,
}

/// Builds everything that it takes to boot `options.toplevel` from memory.
///
/// # Errors
///
/// The first thing that is missing or fails, as a sentence with the next step. Nothing is left under a final name then, and
/// what an earlier build put there is untouched.
pub fn build(options: &Options, progress: Progress) -> Result<Manifest> {
    let system = toplevel::read(&options.toplevel)?;
    let firn_init = init::read(&options.firn_init, &system.platform)?;
    let modules = modules::collect(&system)?;
    let closure = nix::closure(&system.toplevel)?;

    let mut output = output::Directory::create(&options.out)?;
    let image = output.path("nix-store.squashfs");
    squashfs::make(&closure, &image, options, output.scratch(), progress)?;

    let plan = Plan {
        version: VERSION,
        kernel_release: system.kernel_release.clone(),
        init: system.init.clone(),
        modules: modules.iter().map(|module| module.path.clone()).collect(),
        image: Image { path: IMAGE.into(), bytes: ramdisk::image_size(&image)? },
    };
    ramdisk::write(&output.path("initrd"), &firn_init, &modules, &plan, &image, progress)?;
    output::copy(&system.kernel, &output.path("bzImage"))?;
    output::write(&output.path("netboot.ipxe"), &ipxe::script(&system.cmdline()))?;

    let manifest = manifest::describe(&system, &plan, &closure, &output, progress)?;
    output::write(&output.path("manifest.json"), &manifest.to_json()?)?;
    output.publish()?;
    Ok(manifest)
}
