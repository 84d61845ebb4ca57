//! The build: from a system's closure to what a machine boots. A file for each thing that is made.

pub mod built;
mod closure;
mod compressor;
pub(crate) mod cpio;
mod database;
mod erofs;
pub mod interrupt;
pub mod ipxe;
pub mod kexec;
mod manifest;
mod modules;
mod nix;
mod output;
mod program;
pub mod progress;
mod ramdisk;
mod squashfs;
mod store;
mod tool;
mod toplevel;
pub mod uki;

pub use closure::Contents;
pub use compressor::Compressor;
pub use database::Database;
pub use manifest::Manifest;
pub use output::Entry;
pub use ramdisk::Segments;
pub use store::{Compression, Format, Packing, Profile};

use crate::plan::{self, Image, Plan, VERSION};
use anyhow::Result;
use modules::{Modules, Packed};
use nix::Registered;
use output::Directory;
use progress::Progress;
use ramdisk::Programs;
use std::io::Write;
use std::path::{Path, PathBuf};
use toplevel::System;

/// What to build, from what, to where.
#[derive(Debug)]
pub struct Options {
    /// A NixOS toplevel, or a symlink to one, in the machine's Nix store.
    pub toplevel: PathBuf,
    /// The directory for what is made, or the file. A directory is made if it is not there; files of other names in it are left
    /// alone.
    pub out: PathBuf,
    /// The static firn-init that becomes PID 1.
    pub firn_init: PathBuf,
    /// What else is in the store image, or is not.
    pub contents: Contents,
    /// Kernel modules that every boot loads.
    pub modules: Vec<String>,
    /// Kernel modules that are loaded when a device asks for them.
    pub available_modules: Vec<String>,
    /// A static busybox for the menu of a boot that failed.
    pub rescue_shell: Option<PathBuf>,
    /// The segments of the ramdisk beside the store image.
    pub segments: Segments,
    /// When the Nix database of the booted system is made.
    pub database: Database,
    /// Whether stage 1 compares the store image with its checksum at each boot.
    pub verify: bool,
    /// How the store is packed.
    pub packing: Packing,
}

impl Options {
    /// Nothing that was not asked for, packed as nixpkgs packs it.
    #[must_use]
    pub fn new(toplevel: impl Into<PathBuf>, out: impl Into<PathBuf>, firn_init: impl Into<PathBuf>) -> Self {
        Self {
            toplevel: toplevel.into(),
            out: out.into(),
            firn_init: firn_init.into(),
            contents: Contents::default(),
            modules: Vec::new(),
            available_modules: Vec::new(),
            rescue_shell: None,
            segments: Segments::default(),
            database: Database::default(),
            verify: false,
            packing: Packing::default(),
        }
    }
}

/// Builds everything that it takes to boot `options.toplevel` from memory, in the directory `options.out`.
///
/// # Errors
///
/// The first thing that is missing or fails, as a sentence with the next step. Nothing is left under a final name then, and
/// what an earlier build put there is untouched.
pub fn build(options: &Options, progress: Progress) -> Result<Manifest> {
    let system = toplevel::read(&options.toplevel)?;
    let format = options.packing.format;
    let parts = Parts::collect(&system, format, options)?;

    let mut output = Directory::create(&options.out)?;
    let name = format.file_name();
    let image = output.staged(name);
    let database = parts.database(&system, options, output.scratch(), progress)?;
    store::make(&parts.closure, &image, &options.packing, output.scratch(), progress)?;
    ramdisk::check_size(&image)?;

    let plan = parts.plan(&system, options, output.add(name, progress)?, format, database.is_some());
    let Parts { programs, modules, closure } = parts;
    let files = modules.files.into_iter().chain(database).collect();
    output.write("initrd", |out| {
        ramdisk::write(out, &programs, files, &plan, &options.segments, Some(&image), progress)
    })?;
    output.copy("bzImage", &system.kernel)?;
    let script = ipxe::script(&system.cmdline(), None, "");
    output.write("netboot.ipxe", |out| Ok(out.write_all(script.as_bytes())?))?;

    let manifest = manifest::describe(&system, &plan, &closure, output.entries());
    output.write("manifest.json", |out| Ok(out.write_all(manifest.to_json()?.as_bytes())?))?;
    output.publish()?;
    Ok(manifest)
}

/// Makes the store image alone, as the file `options.out`.
///
/// # Errors
///
/// As above.
pub fn store_image(options: &Options, progress: Progress) -> Result<Vec<Entry>> {
    let system = toplevel::read(&options.toplevel)?;
    let closure = options.contents.collect(&system)?;
    let (mut output, name) = Directory::of_file(&options.out, options.packing.format.file_name())?;
    store::make(&closure, &output.staged(&name), &options.packing, output.scratch(), progress)?;
    output.add(&name, progress)?;
    output.publish()
}

/// Makes the ramdisk alone, as the file `options.out`, for a store image that was made before. With `split` the image is
/// not in it: it has to come from the boot loader, as another one.
///
/// # Errors
///
/// As above, and an image that is none.
pub fn ramdisk(options: &Options, image: &Path, split: bool, progress: Progress) -> Result<Vec<Entry>> {
    let system = toplevel::read(&options.toplevel)?;
    let format = Format::of(image)?;
    if !split {
        ramdisk::check_size(image)?;
    }
    let parts = Parts::collect(&system, format, options)?;
    let (mut output, name) = Directory::of_file(&options.out, "initrd")?;
    let database = parts.database(&system, options, output.scratch(), progress)?;
    let plan = parts.plan(&system, options, output::describe(image, progress)?, format, database.is_some());
    let Parts { programs, modules, .. } = parts;
    let files = modules.files.into_iter().chain(database).collect();
    let image = (!split).then_some(image);
    output.write(&name, |out| ramdisk::write(out, &programs, files, &plan, &options.segments, image, progress))?;
    output.publish()
}

/// What a ramdisk is made of, apart from the store image.
struct Parts {
    programs: Programs,
    modules: Modules,
    closure: Vec<Registered>,
}

impl Parts {
    fn collect(system: &System, format: Format, options: &Options) -> Result<Self> {
        let shell =
            options.rescue_shell.as_ref().map(|path| program::rescue_shell(path, &system.platform)).transpose()?;
        let firn_init = program::firn_init(&options.firn_init, &system.platform)?;
        Ok(Self {
            programs: Programs { firn_init, rescue_shell: shell },
            modules: modules::collect(system, format, &options.modules, &options.available_modules)?,
            closure: options.contents.collect(system)?,
        })
    }

    fn database(
        &self,
        system: &System,
        options: &Options,
        scratch: &Path,
        progress: Progress,
    ) -> Result<Option<Packed>> {
        database::make(options.database, &self.closure, &system.toplevel, scratch, progress)
    }

    fn plan(&self, system: &System, options: &Options, image: Entry, format: Format, database: bool) -> Plan {
        Plan {
            version: VERSION,
            kernel_release: system.kernel_release.clone(),
            init: system.init.clone(),
            modules: self.modules.load.clone(),
            image: Image { path: format!("/{}", format.file_name()), bytes: image.bytes, sha256: image.sha256 },
            database: database.then(|| plan::Database { path: plan::DATABASE.into(), schema: database::SCHEMA }),
            verify: options.verify,
            host_id: system.host_id.clone(),
        }
    }
}
