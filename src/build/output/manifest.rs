//! The manifest of a build, from the parts of the build.

use crate::build::system::toplevel::NixosSystem;
use crate::contract::file_name::{FileName, MemberPath};
use crate::contract::manifest::{FileEntry, ImageFile, Manifest};
use crate::contract::plan::Plan;
use crate::formats::kernel_line::KernelLine;
use crate::formats::registration::Registered;
use anyhow::{Context, Result};

/// Makes sure that a manifest can describe a system: other subcommands refuse a manifest with a label of two lines, and the kernel's
/// release becomes a part of paths.
///
/// # Errors
///
/// A text that a manifest cannot have.
pub fn ensure_describable(system: &NixosSystem) -> Result<()> {
    let described = of_system(system, &system.cmdline()?);
    described.check().with_context(|| {
        format!("{} cannot be packed; change the option that the text is from", system.toplevel.display())
    })
}

/// Describes a build with these output files.
///
/// # Errors
///
/// Those of [`ensure_describable`].
pub fn describe(
    system: &NixosSystem,
    cmdline: &KernelLine,
    plan: &Plan,
    before_images: u64,
    closure: &[Registered],
    files: &[FileEntry],
) -> Result<Manifest> {
    let image = |path: String| -> Result<_> {
        let file = FileName::new(path.rsplit('/').next().unwrap_or_default())?;
        Ok(ImageFile { file, path: MemberPath::new(&path)? })
    };
    let images = plan.images.iter().map(|described| image(described.path.clone()));
    Ok(Manifest {
        modules: plan.modules.clone(),
        store_paths: closure.len(),
        store_bytes: closure.iter().map(|path| path.nar_size).sum(),
        images: images.collect::<Result<_>>()?,
        before_images,
        files: files.iter().map(FileEntry::checked).collect::<Result<_>>()?,
        ..of_system(system, cmdline)
    })
}

fn of_system(system: &NixosSystem, cmdline: &KernelLine) -> Manifest {
    Manifest {
        firn: env!("CARGO_PKG_VERSION").into(),
        label: system.label.clone(),
        system: system.platform.clone(),
        toplevel: system.toplevel.to_string_lossy().into_owned(),
        init: system.init.clone(),
        hand_over: Some(system.kind),
        cmdline: cmdline.to_string(),
        kernel_release: system.kernel_release.clone(),
        ..Manifest::default()
    }
}
