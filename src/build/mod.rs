//! The build: from a system's closure to what a machine boots. A file for each thing that is made.

pub mod output;
pub mod ramdisk;
pub mod store;
pub mod system;
pub mod ways;

use crate::build::output::directory::{self, Directory};
use crate::build::output::manifest;
use crate::build::ramdisk::database::{self, Database};
use crate::build::ramdisk::modules::{self, Modules, Packed};
use crate::build::ramdisk::placement::Placement;
use crate::build::ramdisk::program;
use crate::build::ramdisk::segments::{self, Programs, Segments};
use crate::build::store::divide::numbered;
use crate::build::store::images;
use crate::build::store::layers::Layers;
use crate::build::store::packing::{Format, Packing};
use crate::build::system::closure::Contents;
use crate::build::system::toplevel::{self, System};
use crate::build::ways::ipxe;
use crate::contract::manifest::{FileEntry, Manifest};
use crate::contract::place::Place;
use crate::contract::plan::{self, Image, MAX_IMAGES, MAX_UNPACKED, Plan, Start, VERSION};
use crate::formats::registration::Registered;
use crate::host::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};

/// From this size on, bytes, there are firmwares and boot loaders that fail with a ramdisk (nixpkgs issues 203593, 73588).
const LARGE: u64 = 1 << 30;

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
    /// Store images that were made before, the lowest layer first: [`build`] takes them in place of packing the store.
    pub images: Vec<PathBuf>,
    /// Whether parts of the store are kept for the next build.
    pub layers: Option<Layers>,
    /// Where stage 1 has the store images.
    pub placement: Placement,
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
            images: Vec::new(),
            layers: None,
            placement: Placement::default(),
        }
    }

    /// Files that are read, and so must not be written.
    fn inputs(&self) -> impl Iterator<Item = &Path> {
        let programs = [&self.firn_init].into_iter().chain(&self.rescue_shell);
        let segments = self.segments.before.iter().chain(&self.segments.after);
        programs.chain(segments).chain(&self.images).map(PathBuf::as_path)
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
    directory::outside(&options.out, &system.toplevel)?;
    let format = if options.images.is_empty() { options.packing.format } else { format_of(&options.images)? };
    let parts = Parts::collect(&system, format, options)?;

    let mut output = Directory::create(&options.out)?;
    for name in [format.file_name(), "initrd", "bzImage", "netboot.ipxe", "manifest.json"] {
        output.spare(name, options.inputs())?;
    }
    let database = parts.database(&system, options, progress)?;
    let entries = if options.images.is_empty() {
        let name = format.file_name();
        let packed =
            images::make(&parts.closure, output.scratch(), name, &options.packing, options.layers.as_ref(), progress);
        let entries = packed.map_err(|error| output.unwritten(name, error))?;
        output.add(&entries);
        entries
    } else {
        let entries = described(&options.images, format, progress)?;
        for (entry, image) in entries.iter().zip(&options.images) {
            output.link(entry.clone(), image, progress)?;
        }
        entries
    };
    let images: Vec<_> = entries.iter().map(|entry| output.staged(&entry.name)).collect();

    let plan = parts.plan(&system, options, entries, database.is_some())?;
    let Parts { programs, modules, closure, retain } = parts;
    let files = modules.files.into_iter().chain(database).collect();
    let before_images = output
        .write("initrd", |out| segments::write(out, &programs, files, &plan, &options.segments, &images, progress))?;
    advise(output.entries().last(), progress);
    output.copy("bzImage", &system.kernel, progress)?;
    let cmdline = system.cmdline(retain);
    let script = ipxe::script(&cmdline, &[], "");
    output.write("netboot.ipxe", |out| Ok(out.write_all(script.as_bytes())?))?;

    let manifest = manifest::describe(&system, cmdline, &plan, before_images, &closure, output.entries());
    output.write("manifest.json", |out| Ok(out.write_all(manifest.to_json()?.as_bytes())?))?;
    output.publish()?;
    Ok(manifest)
}

/// Says what may be ahead of a large ramdisk.
fn advise(ramdisk: Option<&FileEntry>, progress: Progress) {
    if let Some(FileEntry { bytes, .. }) = ramdisk.filter(|ramdisk| ramdisk.bytes > LARGE) {
        progress.say(&format!(
            "The ramdisk has {bytes} bytes. Firmware and boot loaders are known to fail with more than 1 GiB in one file: if yours \
             does, try firn ipxe --split, or pack less"
        ));
    }
}

/// Makes the store image alone, as the file `options.out`; if it takes several, the others are beside it with a number in their
/// names.
///
/// # Errors
///
/// As above.
pub fn store_image(options: &Options, progress: Progress) -> Result<Vec<FileEntry>> {
    let system = toplevel::read(&options.toplevel)?;
    directory::outside(&options.out, &system.toplevel)?;
    let closure = options.contents.collect(&system)?;
    let (mut output, name) = Directory::of_file(&options.out, options.packing.format.file_name())?;
    let images = images::make(&closure, output.scratch(), &name, &options.packing, options.layers.as_ref(), progress);
    output.add(&images.map_err(|error| output.unwritten(&name, error))?);
    output.publish()
}

/// Makes the ramdisk alone, as the file `options.out`, for store images that were made before, the lowest layer first. With
/// `split` they are not in it: they have to come from the boot loader, as other ramdisks.
///
/// # Errors
///
/// As above, and an image that is none.
pub fn ramdisk(options: &Options, images: &[PathBuf], split: bool, progress: Progress) -> Result<Vec<FileEntry>> {
    let system = toplevel::read(&options.toplevel)?;
    directory::outside(&options.out, &system.toplevel)?;
    let format = format_of(images)?;
    let parts = Parts::collect(&system, format, options)?;
    let (mut output, name) = Directory::of_file(&options.out, "initrd")?;
    output.spare(&name, options.inputs().chain(images.iter().map(PathBuf::as_path)))?;
    let database = parts.database(&system, options, progress)?;
    let plan = parts.plan(&system, options, described(images, format, progress)?, database.is_some())?;
    let Parts { programs, modules, .. } = parts;
    let files = modules.files.into_iter().chain(database).collect();
    let images = if split { &[] } else { images };
    output.write(&name, |out| segments::write(out, &programs, files, &plan, &options.segments, images, progress))?;
    advise(output.entries().last(), progress);
    output.publish()
}

/// The format of store images that were made before: they have to have the same.
fn format_of(images: &[PathBuf]) -> Result<Format> {
    let Some(first) = images.first() else { bail!("there is no store image; give what firn image made with --image") };
    let format = Format::of(first)?;
    for image in images {
        ensure!(
            Format::of(image)? == format,
            "{} and {} are of different formats; pack both the same way",
            first.display(),
            image.display()
        );
    }
    ensure!(images.len() <= MAX_IMAGES, "stage 1 stacks at most {MAX_IMAGES} store images; pack the store as fewer");
    Ok(format)
}

/// What these images are, by the names that they would have got here.
fn described(images: &[PathBuf], format: Format, progress: Progress) -> Result<Vec<FileEntry>> {
    let names = (0..images.len()).map(|number| numbered(format.file_name(), number));
    names.zip(images).map(|(name, image)| Ok(FileEntry { name, ..directory::describe(image, progress)? })).collect()
}

/// What a ramdisk is made of, apart from the store image.
struct Parts {
    programs: Programs,
    modules: Modules,
    closure: Vec<Registered>,
    /// Whether the images stay where the boot loader puts them.
    retain: bool,
}

impl Parts {
    fn collect(system: &System, format: Format, options: &Options) -> Result<Self> {
        let shell =
            options.rescue_shell.as_ref().map(|path| program::rescue_shell(path, &system.platform)).transpose()?;
        let firn_init = program::firn_init(&options.firn_init, &system.platform)?;
        // Said now and not after the store is packed.
        options.segments.level()?;
        Ok(Self {
            programs: Programs { firn_init, rescue_shell: shell },
            modules: modules::collect(system, format, &options.modules, &options.available_modules)?,
            closure: options.contents.collect(system)?,
            retain: options.placement.retains(&system.kernel_release)?,
        })
    }

    /// Made where temporary files are, and not beside the output, which may be on a file system that others share.
    fn database(&self, system: &System, options: &Options, progress: Progress) -> Result<Option<Packed>> {
        let scratch = tempfile::tempdir().context("making a temporary directory; TMPDIR can name another place")?;
        database::make(options.database, &self.closure, &system.toplevel, scratch.path(), progress)
    }

    /// # Errors
    ///
    /// An image that the kernel would not unpack whole.
    fn plan(&self, system: &System, options: &Options, images: Vec<FileEntry>, database: bool) -> Result<Plan> {
        if let Some(FileEntry { name, bytes, .. }) =
            images.iter().find(|image| !self.retain && image.bytes > MAX_UNPACKED)
        {
            bail!(
                "{name} has {bytes} bytes, and of one file the kernel unpacks {MAX_UNPACKED}: pack the store again with a smaller \
                 --max-image, or leave out --image-placement copy with Linux 6.8 or newer"
            );
        }
        let place = |name| if self.retain { Place::Retained(name) } else { Place::Unpacked(format!("/{name}")) };
        let image = |FileEntry { name, bytes, sha256 }| Image { place: place(name), bytes, sha256 };
        Ok(Plan {
            version: VERSION,
            firn: env!("CARGO_PKG_VERSION").into(),
            kernel_release: system.kernel_release.clone(),
            init: system.init.clone(),
            start: Some(Start { kind: system.kind, interpreter: system.interpreter.clone() }),
            modules: self.modules.load.clone(),
            images: images.into_iter().map(image).collect(),
            database: database.then(|| plan::Database { path: plan::DATABASE.into(), schema: database::SCHEMA }),
            verify: options.verify,
            host_id: system.host_id.clone(),
        })
    }
}
