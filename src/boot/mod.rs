//! The boot, as it happens in the initramfs: a file for each step, in the order of [`run`].
//!
//! Every step takes what the steps before it made and returns what the later ones need, so that a wrong order does not
//! compile. A step that cannot go on returns an error that names the object, the kernel's reason and what to do; it is
//! printed in one place, [`rescue`].

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)
)]

pub mod cmdline;
mod early;
mod files;
mod handover;
mod kmsg;
mod modules;
mod mount;
mod options;
mod plan;
mod registration;
pub mod rescue;
mod root;
mod step;
mod store;
mod sys;
mod system;
mod telemetry;

use anyhow::{Context, Result};
use std::convert::Infallible;
use step::Steps;

/// Carries the machine from an initramfs to the init of the system in the store image.
///
/// # Errors
///
/// The first step that fails ends the boot; its name is the outermost context. There is no success: by then the process
/// is another program.
pub fn run() -> Result<Infallible> {
    let mut steps = Steps::default();
    let early = steps.run("early mounts", early::prepare)?;
    let memory = telemetry::available_memory();
    let words = steps.run("command line", cmdline::read)?;
    let options = options::apply(&words);
    let plan = steps.run("plan", || plan::read(&options))?;
    steps.run("modules", || modules::load(&plan.modules))?;
    let root = steps.run("root", || root::create(&early, &options.root))?;
    let root = steps.run("store", || store::assemble(root, &plan.image, &options.rw_store))?;
    let system = steps.run("system", || system::find(&root, &words, plan.init.as_deref()))?;
    steps.run("registration", || registration::register(&root, &system, options.register))?;
    steps.run("files", || files::copy(&root))?;
    let switched = steps.run("hand-over", || handover::switch_root(&root, early, &system))?;
    telemetry::write(&steps, &plan, &system, memory);
    switched.exec().context("hand-over")
}
