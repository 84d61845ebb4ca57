//! What a build reads and checks before it writes anything: programs, kernel modules, the closure; and the plan for stage 1.

use crate::build::options::BuildOptions;
use crate::build::output::manifest;
use crate::build::ramdisk::database;
use crate::build::ramdisk::file::RamdiskFile;
use crate::build::ramdisk::modules::{self, Modules};
use crate::build::ramdisk::program;
use crate::build::ramdisk::segments::Executables;
use crate::build::store::packing::Format;
use crate::build::system::closure::Selected;
use crate::build::system::toplevel::NixosSystem;
use crate::contract::manifest::FileEntry;
use crate::contract::parameters::RETAIN;
use crate::contract::place::ZERO_COPY;
use crate::contract::plan::{self, Image, MAX_UNPACKED, Plan, Start, VERSION};
use crate::formats::registration::Registered;
use crate::host::progress::Progress;
use anyhow::{Context, Result, bail};

/// The inputs of a ramdisk, except the store images.
pub struct Inputs {
    /// The programs of the ramdisk.
    pub executables: Executables,
    /// The kernel modules of the ramdisk.
    pub modules: Modules,
    /// The store paths of the store image, sorted.
    pub closure: Vec<Registered>,
    /// Those of them that Nix keeps in the running system, with their closures.
    pub roots: Vec<String>,
    /// Whether the store images can stay where the boot loader puts them.
    pub zero_copy: bool,
}

impl Inputs {
    /// Reads and checks the inputs.
    ///
    /// # Errors
    ///
    /// A text of the system that no manifest can have; a missing or unsuitable program, kernel module, store path or compression level, and a kernel that cannot keep the
    /// ramdisk.
    pub fn collect(system: &NixosSystem, format: Format, options: &BuildOptions, progress: Progress) -> Result<Self> {
        manifest::ensure_describable(system)?;
        let shell =
            options.rescue_shell.as_ref().map(|path| program::rescue_shell(path, &system.platform)).transpose()?;
        let firn_init = program::firn_init(&options.firn_init, &system.platform)?;
        // Checked here: after packing the store this error would come minutes later.
        options.segments.level()?;
        let Selected { closure, roots } = options.selection.collect(system, progress)?;
        Ok(Self {
            closure,
            roots,
            executables: Executables { firn_init, rescue_shell: shell },
            modules: modules::collect(
                system,
                format,
                &options.modules,
                &options.available_modules,
                options.allow_missing_modules,
                progress,
            )?,
            zero_copy: options.placement.is_zero_copy(&system.kernel_release)?,
        })
    }

    /// Makes the Nix database, in the directory for temporary files: the output may be on a file system that others share.
    ///
    /// # Errors
    ///
    /// No room for temporary files, and those of [`database::make`].
    pub fn database(
        &self,
        system: &NixosSystem,
        options: &BuildOptions,
        progress: Progress,
    ) -> Result<Option<RamdiskFile>> {
        let scratch =
            tempfile::tempdir().context("making a temporary directory; set TMPDIR to use another directory")?;
        database::make(options.database, &self.closure, &system.toplevel, scratch.path(), progress)
    }

    /// The plan for stage 1, with these store images, the lowest layer first.
    ///
    /// # Errors
    ///
    /// An image that is too large for the kernel to unpack.
    pub fn plan(
        &self,
        system: &NixosSystem,
        options: &BuildOptions,
        images: Vec<FileEntry>,
        database: bool,
        progress: Progress,
    ) -> Result<Plan> {
        if let Some(FileEntry { name, bytes, .. }) =
            images.iter().find(|image| !self.zero_copy && image.bytes > MAX_UNPACKED)
        {
            bail!(
                "{name} has {bytes} bytes, and the kernel unpacks at most {MAX_UNPACKED} bytes of one file: pack the store \
                 again with a smaller --max-image, or use Linux 6.8 or newer without --image-placement copy"
            );
        }
        if let Some(FileEntry { name, bytes, .. }) = images.iter().find(|image| image.bytes > MAX_UNPACKED) {
            progress.say(&format!(
                "{name} has {bytes} bytes, more than many kernels unpack: boot with firn's boot files (netboot.ipxe, firn kexec, firn uki), \
                 or load {ZERO_COPY} before initrd and add {RETAIN} to the command line"
            ));
        }
        let image = |FileEntry { name, bytes, sha256 }| Image { path: format!("/{name}"), bytes, sha256 };
        Ok(Plan {
            version: VERSION,
            firn: env!("CARGO_PKG_VERSION").into(),
            kernel_release: system.kernel_release.clone(),
            init: system.init.clone(),
            start: Some(Start { kind: system.kind, interpreter: system.interpreter.clone() }),
            modules: self.modules.load.clone(),
            module_options: self.modules.options.clone(),
            images: images.into_iter().map(image).collect(),
            database: database.then(|| plan::Database { path: plan::DATABASE.into(), schema: database::SCHEMA }),
            verify: options.verify,
            host_id: system.host_id.clone(),
            roots: self.roots.clone(),
        })
    }
}
