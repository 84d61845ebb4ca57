//! The plan of this ramdisk, checked against the running kernel; or default values if the ramdisk has no plan.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::kernel::file;
use crate::boot::kernel::release::kernel_release;
use crate::boot::parameters::options::Options;
use crate::boot::parameters::values;
use crate::contract::plan::{Database, IMAGE, PATH, REQUIRED_MODULES, Start};
use crate::formats::modules::{self, Index, Texts};
use anyhow::{Context, Result, bail};
use std::io::ErrorKind;

/// The instructions for this boot.
#[derive(Default)]
pub struct BootPlan {
    /// The init of the default system.
    pub init: Option<String>,
    /// The way to start this init, if the builder wrote it into the plan.
    pub start: Option<Start>,
    /// The paths of the module files that every boot loads, in load order.
    pub modules: Vec<String>,
    /// The parameters of modules that the system has (`module parameter=value`).
    pub module_options: Vec<String>,
    /// The directory of all modules in the ramdisk, such as `/lib/modules/6.12.5`.
    pub module_directory: String,
    /// The files `modules.*` of this directory. They are empty if all modules of the ramdisk are in the plan.
    pub module_texts: Texts,
    /// The store images, the lowest layer first.
    pub images: Vec<ExpectedImage>,
    /// The Nix database of these images, if the ramdisk has one.
    pub database: Option<Database>,
    /// Whether every boot compares the SHA-256 of the images with the plan.
    pub verify: bool,
    /// The host id of the system.
    pub host_id: Option<u32>,
    /// The store paths that Nix keeps, with their closures. Empty if the plan does not name those of the images.
    pub roots: Vec<String>,
}

/// Reads the plan. Store images on the command line replace those of the plan. A ramdisk that another tool made, with firn-init as its
/// init, has no plan: then the image has nixpkgs' name, and the ramdisk's `modules.dep` lists the modules.
///
/// # Errors
///
/// A plan that cannot be read or parsed, a plan for another kernel, or an invalid SHA-256 on the command line.
pub fn read(options: &Options) -> Result<BootPlan> {
    let mut plan = read_file()?;
    if !options.images.is_empty() {
        plan.images = options.images.iter().map(|path| ExpectedImage::at(path)).collect();
        // These belong to the images of the plan.
        plan.database = None;
        plan.start = None;
        plan.roots.clear();
    }
    if let Some(digests) = &options.digests {
        let digests = values::digests(digests, options.images.len())
            .with_context(|| format!("reading the kernel parameter firn.store.sha256={digests}"))?;
        for (image, digest) in plan.images.iter_mut().zip(digests) {
            image.sha256 = Some(digest);
        }
        plan.verify = true;
    }
    Ok(plan)
}

fn read_file() -> Result<BootPlan> {
    let release = kernel_release()?;
    let module_directory = format!("/lib/modules/{release}");
    let module_texts = module_texts(&module_directory)?;
    let json = match file::read_to_string(PATH) {
        Ok(json) => json,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            log::info!("No plan at {PATH}: using the default image and modules");
            let modules = required_modules(&module_directory, &module_texts);
            return Ok(BootPlan {
                modules,
                module_directory,
                module_texts,
                images: vec![ExpectedImage::at(IMAGE)],
                ..BootPlan::default()
            });
        }
        Err(error) => return Err(error).with_context(|| format!("reading {PATH}")),
    };
    let plan = crate::contract::plan::Plan::from_json(&json).with_context(|| format!("reading {PATH}"))?;
    // Without modules, the ramdisk works with every kernel.
    if plan.kernel_release != release && !plan.modules.is_empty() {
        bail!(
            "the running kernel is {release}, but the ramdisk and its modules are built for {}; boot the ramdisk with the kernel \
             of the same build, or build it again for this kernel",
            plan.kernel_release
        );
    }
    let host_id =
        plan.host_id.map(|id| values::host_id(&id).with_context(|| format!("{PATH}: host_id"))).transpose()?;
    let known = |image: crate::contract::plan::Image| ExpectedImage {
        path: image.path,
        bytes: Some(image.bytes),
        sha256: Some(image.sha256.to_ascii_lowercase()),
    };
    Ok(BootPlan {
        init: Some(plan.init),
        start: plan.start,
        modules: plan.modules,
        module_options: plan.module_options,
        module_directory,
        module_texts,
        images: plan.images.into_iter().map(known).collect(),
        database: plan.database,
        verify: plan.verify,
        host_id,
        roots: plan.roots,
    })
}

fn module_texts(directory: &str) -> Result<Texts> {
    Texts::read(|name| match file::read_to_string(&format!("{directory}/{name}")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("reading {directory}/{name}")),
    })
}

/// The files of the required modules, as the ramdisk's `modules.dep` lists them. A missing file is no error here: the module may be
/// built into the kernel. If not, a later mount fails with the reason.
fn required_modules(directory: &str, texts: &Texts) -> Vec<String> {
    let index = Index::parse(texts);
    let order = index.load_order(&REQUIRED_MODULES);
    if !order.missing.is_empty() {
        log::info!("Not in {directory}, so built into the kernel or missing: {}", order.missing.join(", "));
    }
    order.files.iter().map(|file| modules::path(directory, file)).collect()
}
