//! The plan of this ramdisk, checked against the kernel that runs; or the defaults where there is none.

use crate::boot::image::expected::Image;
use crate::boot::kernel::release::kernel_release;
use crate::boot::parameters::options::Options;
use crate::boot::parameters::values;
use crate::contract::plan::{Database, IMAGE, PATH, REQUIRED_MODULES, Start};
use crate::formats::modules::{Index, Texts};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::ErrorKind;

/// What this boot is to do.
pub struct Plan {
    /// The init of the default system.
    pub init: Option<String>,
    /// How that init is started, where the builder wrote it down.
    pub start: Option<Start>,
    /// Module files in load order.
    pub modules: Vec<String>,
    /// Where the ramdisk has what modules it has, these and others.
    pub module_directory: String,
    /// What the ramdisk's own `modules.*` say of them. A ramdisk whose modules are all in the plan has none.
    pub module_texts: Texts,
    /// Where the store images are and what is known about them, the lowest layer first.
    pub images: Vec<Image>,
    /// The Nix database of these images.
    pub database: Option<Database>,
    /// Whether the images are compared with their checksums at each boot.
    pub verify: bool,
    /// The system's host id.
    pub host_id: Option<u32>,
}

/// Reads the plan, with the store images that the command line names in place of its own. A ramdisk without one is a foreign one
/// that firn-init was dropped into: there the image has nixpkgs' name, and the modules are those that its `modules.dep` knows.
///
/// # Errors
///
/// A plan that cannot be read or parsed, or that was made for another kernel.
pub fn read(options: &Options) -> Result<Plan> {
    let mut plan = read_file()?;
    if !options.images.is_empty() {
        plan.images = options.images.iter().map(|path| Image::at(path)).collect();
        // of other images
        plan.database = None;
        plan.start = None;
    }
    Ok(plan)
}

fn read_file() -> Result<Plan> {
    let release = kernel_release()?;
    let module_directory = format!("/lib/modules/{release}");
    let module_texts = module_texts(&module_directory)?;
    let json = match fs::read_to_string(PATH) {
        Ok(json) => json,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            log::info!("No plan at {PATH}: going by the defaults");
            let modules = required_modules(&module_directory, &module_texts);
            return Ok(Plan {
                init: None,
                start: None,
                modules,
                module_directory,
                module_texts,
                images: vec![Image::at(IMAGE)],
                database: None,
                verify: false,
                host_id: None,
            });
        }
        Err(error) => return Err(error).with_context(|| format!("reading {PATH}")),
    };
    let plan = crate::contract::plan::Plan::from_json(&json).with_context(|| format!("reading {PATH}"))?;
    // A kernel that has everything built in can be exchanged for another one.
    if plan.kernel_release != release && !plan.modules.is_empty() {
        bail!(
            "the kernel that runs is {release}, the ramdisk was built for {}: its modules would not load; boot it with the \
             kernel that lies beside it, or build it again for this one",
            plan.kernel_release
        );
    }
    let host_id =
        plan.host_id.map(|id| values::host_id(&id).with_context(|| format!("{PATH}: host_id"))).transpose()?;
    let known = |image: crate::contract::plan::Image| Image {
        place: image.place,
        bytes: Some(image.bytes),
        sha256: Some(image.sha256.to_lowercase()),
    };
    Ok(Plan {
        init: Some(plan.init),
        start: plan.start,
        modules: plan.modules,
        module_directory,
        module_texts,
        images: plan.images.into_iter().map(known).collect(),
        database: plan.database,
        verify: plan.verify,
        host_id,
    })
}

fn module_texts(directory: &str) -> Result<Texts> {
    Texts::read(|name| match fs::read_to_string(format!("{directory}/{name}")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("reading {directory}/{name}")),
    })
}

/// The files of the required modules as the ramdisk's own `modules.dep` lists them. A ramdisk without module files is no
/// error: the kernel may have everything built in, and mounting will tell.
fn required_modules(directory: &str, texts: &Texts) -> Vec<String> {
    let index = Index::parse(texts);
    let order = index.load_order(&REQUIRED_MODULES);
    if !order.missing.is_empty() {
        log::info!("Not among the modules in {directory}: {}", order.missing.join(", "));
    }
    order.files.iter().map(|file| format!("{directory}/{file}")).collect()
}
