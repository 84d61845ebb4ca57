//! The build: from a system's closure to what a machine boots. A file for each thing that is made.

pub mod built;
mod closure;
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
pub use database::Database;
pub use manifest::Manifest;
pub use output::Entry;
pub use store::{Compression, Format, Packing, Profile};

use crate::plan::{self, Image, Plan, VERSION};
use anyhow::Result;
use progress::Progress;
use ramdisk::Programs;
use std::io::Write;
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
    /// What else is in the store image, or is not.
    pub contents: Contents,
    /// Kernel modules that every boot loads.
    pub modules: Vec<String>,
    /// Kernel modules that are loaded when a device asks for them.
    pub available_modules: Vec<String>,
    /// A static busybox for the menu of a boot that failed.
    pub rescue_shell: Option<PathBuf>,
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
            database: Database::default(),
            verify: false,
            packing: Packing::default(),
        }
    }
}

/// Builds everything that it takes to boot `options.toplevel` from memory.
///
/// # Errors
///
/// The first thing that is missing or fails, as a sentence with the next step. Nothing is left under a final name then, and
/// what an earlier build put there is untouched.
pub fn build(options: &Options, progress: Progress) -> Result<Manifest> {
    let system = toplevel::read(&options.toplevel)?;
    let programs = Programs {
        firn_init: program::firn_init(&options.firn_init, &system.platform)?,
        rescue_shell: options
            .rescue_shell
            .as_ref()
            .map(|path| program::rescue_shell(path, &system.platform))
            .transpose()?,
    };
    let format = options.packing.format;
    let modules = modules::collect(&system, format, &options.modules, &options.available_modules)?;
    let closure = options.contents.collect(&system)?;

    let mut output = output::Directory::create(&options.out)?;
    let database = database::make(options.database, &closure, &system.toplevel, output.scratch(), progress)?;
    let name = format!("nix-store.{}", format.name());
    let image = output.staged(&name);
    store::make(&closure, &image, &options.packing, output.scratch(), progress)?;
    ramdisk::check_size(&image)?;

    let store = output.add(&name, progress)?;
    let plan = Plan {
        version: VERSION,
        kernel_release: system.kernel_release.clone(),
        init: system.init.clone(),
        modules: modules.load,
        image: Image { path: format!("/{name}"), bytes: store.bytes, sha256: store.sha256 },
        database: database.as_ref().map(|file| plan::Database { path: file.path.clone(), schema: database::SCHEMA }),
        verify: options.verify,
        host_id: system.host_id.clone(),
    };
    let files = modules.files.into_iter().chain(database).collect();
    output.write("initrd", |out| ramdisk::write(out, &programs, files, &plan, &image, progress))?;
    output.copy("bzImage", &system.kernel)?;
    output.write("netboot.ipxe", |out| Ok(out.write_all(ipxe::script(&system.cmdline(), None, "").as_bytes())?))?;

    let manifest = manifest::describe(&system, &plan, &closure, output.entries());
    output.write("manifest.json", |out| Ok(out.write_all(manifest.to_json()?.as_bytes())?))?;
    output.publish()?;
    Ok(manifest)
}
