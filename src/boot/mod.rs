//! The boot, as it runs in the initramfs: a file for each step, called in the order of the function `boot`. The rooms below hold the code
//! that the steps share.
//!
//! The arguments of a step are results of earlier steps, so a wrong order does not compile. The error of a failed step names the
//! object, the kernel's reason and the next thing to do. The function `boot` returns it as a value, and [`run`] alone decides what
//! happens next: [`rescue`].

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)
)]

mod activation;
mod attempt;
mod console;
mod database;
mod disk;
mod early;
mod etc;
mod files;
mod guard;
mod handover;
mod host_id;
mod image;
mod images;
mod kernel;
mod modules;
mod mounted;
mod parameters;
mod plan;
mod registration;
pub mod rescue;
mod root;
mod roots;
mod start;
mod step;
mod store;
mod system;
mod telemetry;
#[cfg(test)]
mod tests;

use attempt::Attempt;
use early::Early;
use handover::Switched;
use kernel::modules::Loader;
use kernel::{coldplug, memory};
use parameters::options::{self, Stop};
use rescue::menu::{self, Answer};
use start::{credentials, units};
use step::{Failed, Skippable, Steps};

/// Boots the system in the store image: from the initramfs to the exec of the system's init.
///
/// A person at a console decides whether a failed step is tried again or skipped. Without a person, the command line decides what
/// happens.
pub fn run() -> ! {
    let mut steps = Steps::default();
    let early = until_it_succeeds(&mut steps, |steps| steps.run("early mounts", early::prepare));
    files::copy_secrets();
    let mut attempt = Attempt::default();
    let switched = until_it_succeeds(&mut steps, |steps| {
        boot(steps, &early, &mut attempt).inspect_err(|failed| attempt.after_failure(failed.step))
    });
    let began = steps.began();
    match until_it_succeeds(&mut steps, |steps| steps.run("hand-over", || switched.exec(began))) {}
}

fn until_it_succeeds<T>(steps: &mut Steps, mut run: impl FnMut(&mut Steps) -> Result<T, Failed>) -> T {
    loop {
        match run(steps) {
            Ok(value) => return value,
            Err(failed) => {
                let step = failed.step;
                match menu::fail(failed) {
                    Answer::Skip => steps.skip(step),
                    Answer::Again => steps.skip_nothing(),
                }
            }
        }
    }
}

/// All steps between the first mounts and the exec of the system's init. After a failure it starts again at its first step; `attempt`
/// holds the results that are used again.
///
/// # Errors
///
/// The first failed step.
fn boot(steps: &mut Steps, early: &Early, attempt: &mut Attempt) -> Result<Switched, Failed> {
    let memory = memory::now();
    let cmdline = steps.run("command line", options::read)?;
    let options = options::apply(&cmdline, memory.as_ref());
    menu::stop(&options, Stop::Start);
    let plan = steps.run("plan", || plan::read(&options))?;
    steps.run_unless_skipped("host id", Skippable::ByKey, || host_id::set(&options, &plan))?;
    let plan::BootPlan { module_directory, module_texts, module_options, .. } = &plan;
    let mut loader = Loader::new(module_directory, module_texts, module_options, &cmdline, &mut attempt.modules);
    steps.run_unless_skipped("modules", Skippable::ByKey, || {
        modules::load(&mut loader, &plan.modules, &options.modules)
    })?;
    steps.run_unless_skipped("devices", Skippable::ByKey, || coldplug::run(&mut loader))?;
    menu::stop(&options, Stop::Devices);
    let images = steps.run("image", || {
        images::find(&plan.images, plan.verify || options.verify, &mut attempt.images, &mut attempt.mounted)
    })?;
    let root = steps.run("root", || root::create(early, &cmdline, &options, &mut loader, &mut attempt.mounted))?;
    let root = steps.run("store", || store::assemble(root, images, &options.rw_store, &mut attempt.mounted))?;
    let system = steps.run("system", || system::find(&root, &cmdline, &plan))?;
    let etc = steps.run("etc", || etc::mount(&root, &system.config, options.etc, &mut attempt.mounted))?;
    steps.run_unless_skipped("registration", Skippable::ByKey, || {
        registration::register(&root, &etc, &system, &plan, options.register)
    })?;
    steps.run_unless_skipped("files", Skippable::ByKey, || files::copy(&root, &etc, &system))?;
    steps.run_unless_skipped("credentials", Skippable::ByKey, || credentials::copy_all(&root, &cmdline))?;
    menu::stop(&options, Stop::Mounts);
    steps.run_unless_skipped("activation", Skippable::InWords, || activation::activate(&root, &etc, &system))?;
    steps.run_unless_skipped("units", Skippable::ByKey, || units::set(&root, images.len(), &system))?;
    let switched = steps.run("hand-over", || handover::switch_root(root, early, &system))?;
    telemetry::write(steps, images, &system, memory.as_ref());
    Ok(switched)
}
