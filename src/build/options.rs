//! The options of a build: the system, the output and everything that may differ from the defaults.

use crate::build::ramdisk::database::DatabaseMode;
use crate::build::ramdisk::placement::Placement;
use crate::build::ramdisk::segments::SegmentOptions;
use crate::build::store::layers::LayerCache;
use crate::build::store::packing::Packing;
use crate::build::system::closure::StoreSelection;
use std::path::{Path, PathBuf};

/// The system to build, the place for the output, and how to build it.
#[derive(Debug)]
pub struct BuildOptions {
    /// A NixOS toplevel, or a symlink to one, in the Nix store of this machine.
    pub toplevel: PathBuf,
    /// The output directory, or the output file. A missing directory is made; files of other names in it stay as they are.
    pub out: PathBuf,
    /// The static firn-init that becomes PID 1.
    pub firn_init: PathBuf,
    /// Store paths to add to the store image or to leave out.
    pub selection: StoreSelection,
    /// Kernel modules that every boot loads.
    pub modules: Vec<String>,
    /// Kernel modules that stage 1 loads when a device asks for them.
    pub available_modules: Vec<String>,
    /// Whether a module that the kernel does not have is only a warning, unless stage 1 itself needs it.
    pub allow_missing_modules: bool,
    /// A static busybox for the menu of a failed boot.
    pub rescue_shell: Option<PathBuf>,
    /// The segments of the ramdisk, except the one with the store images.
    pub segments: SegmentOptions,
    /// When the Nix database of the booted system is made.
    pub database: DatabaseMode,
    /// Whether stage 1 compares the store image with its checksum at each boot.
    pub verify: bool,
    /// How the store is packed.
    pub packing: Packing,
    /// Store images from an earlier run, the lowest layer first: [`build`](crate::build::build) uses them instead of packing
    /// the store.
    pub images: Vec<PathBuf>,
    /// The cache of store images for later builds, if any.
    pub layers: Option<LayerCache>,
    /// Where stage 1 finds the store images.
    pub placement: Placement,
}

impl BuildOptions {
    /// The defaults: nothing added, packed like nixpkgs packs it.
    #[must_use]
    pub fn new(toplevel: impl Into<PathBuf>, out: impl Into<PathBuf>, firn_init: impl Into<PathBuf>) -> Self {
        Self {
            toplevel: toplevel.into(),
            out: out.into(),
            firn_init: firn_init.into(),
            selection: StoreSelection::default(),
            modules: Vec::new(),
            available_modules: Vec::new(),
            allow_missing_modules: false,
            rescue_shell: None,
            segments: SegmentOptions::default(),
            database: DatabaseMode::default(),
            verify: false,
            packing: Packing::default(),
            images: Vec::new(),
            layers: None,
            placement: Placement::default(),
        }
    }

    /// The files that a build reads, and so must not overwrite.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        let programs = [&self.firn_init].into_iter().chain(&self.rescue_shell);
        let segments = self.segments.before.iter().chain(&self.segments.after);
        programs.chain(segments).chain(&self.images).map(PathBuf::as_path)
    }
}
