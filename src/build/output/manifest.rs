//! The manifest of a build, from the parts of the build.

use crate::build::system::toplevel::NixosSystem;
use crate::contract::manifest::{FileEntry, ImageFile, Manifest};
use crate::contract::plan::Plan;
use crate::formats::kernel_line::KernelLine;
use crate::formats::registration::Registered;

/// Describes a build with these output files.
#[must_use]
pub fn describe(
    system: &NixosSystem,
    cmdline: &KernelLine,
    plan: &Plan,
    before_images: u64,
    closure: &[Registered],
    files: &[FileEntry],
) -> Manifest {
    let file = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let images = plan.images.iter().map(|image| image.place.path());
    let images = images.map(|path| ImageFile { file: file(&path), path });
    Manifest {
        firn: env!("CARGO_PKG_VERSION").into(),
        label: system.label.clone(),
        system: system.platform.clone(),
        toplevel: system.toplevel.to_string_lossy().into_owned(),
        init: system.init.clone(),
        hand_over: Some(system.kind),
        cmdline: cmdline.to_string(),
        kernel_release: system.kernel_release.clone(),
        modules: plan.modules.clone(),
        store_paths: closure.len(),
        store_bytes: closure.iter().map(|path| path.nar_size).sum(),
        images: images.collect(),
        before_images,
        files: files.to_vec(),
    }
}
