//! The boot, as it happens in the initramfs: a file for each step, in the order of [`run`].
//!
//! Every step takes what the steps before it made and returns what the later ones need, so that a wrong order does not
//! compile. A step that cannot go on returns an error that names the object, the kernel's reason and what to do; it is
//! printed in one place, [`rescue`].

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)
)]

mod activation;
mod coldplug;
mod console;
mod database;
mod disk;
mod early;
mod etc;
mod files;
mod handover;
mod host_id;
mod image;
mod kernel;
mod plan;
mod registration;
pub mod rescue;
mod root;
mod start;
mod step;
mod store;
mod system;
mod telemetry;
mod words;

use anyhow::{Context, Result};
use early::Early;
use handover::Switched;
use image::find;
use kernel::memory;
use kernel::modules::Loader;
use rescue::menu::{self, insist};
use step::Steps;
use words::options::{self, Stop};

/// Carries the machine from an initramfs to the init of the system in the store image.
///
/// What fails is tried again when somebody at a console mended it or wants to see it fail once more.
pub fn run() -> ! {
    let mut steps = Steps::default();
    let early = insist(|| steps.run("early mounts", early::prepare));
    let switched = insist(|| boot(&mut steps, &early));
    match insist(|| switched.exec(steps.began()).context("hand-over")) {}
}

/// Everything between the first mounts and the exec of the system's init.
///
/// # Errors
///
/// The first step that fails ends the boot; its name is the outermost context.
fn boot(steps: &mut Steps, early: &Early) -> Result<Switched> {
    let memory = memory::available();
    let words = steps.run("command line", options::read)?;
    let options = options::apply(&words);
    menu::stop(&options, Stop::Start);
    let plan = steps.run("plan", || plan::read(&options))?;
    steps.run_or_skip("host id", || host_id::set(&options, &plan));
    let mut modules = Loader::new(&plan, &words);
    steps.run_or_skip("modules", || modules.load_all(&plan, &options));
    steps.run_or_skip("devices", || coldplug::run(&mut modules));
    menu::stop(&options, Stop::Devices);
    let images = steps.run("image", || find::find(&plan.images, plan.verify || options.verify))?;
    let root = steps.run("root", || root::create(early, &words, &options.root, &mut modules))?;
    let root = steps.run("store", || store::assemble(root, &images, &options.rw_store))?;
    let system = steps.run("system", || system::find(&root, &words, &plan))?;
    steps.run("etc", || etc::mount(&root, &system.config, options.etc))?;
    let database = plan.database.as_ref();
    steps.run_or_skip("registration", || registration::register(&root, &system, database, options.register));
    steps.run_or_skip("files", || files::copy(&root));
    menu::stop(&options, Stop::Mounts);
    steps.run_or_skip("activation", || activation::activate(&root, &system));
    let switched = steps.run("hand-over", || handover::switch_root(&root, early, &system))?;
    telemetry::write(steps, &images, &system, memory);
    Ok(switched)
}
