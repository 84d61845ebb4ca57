//! The modules that every boot loads.

use crate::boot::kernel::modules::Loader;
use anyhow::Result;

/// Loads the plan's modules in their order, and then those that the command line names.
///
/// # Errors
///
/// A module of the plan that cannot be opened or that the kernel refuses. One of the command line is a warning.
pub fn load(loader: &mut Loader<'_>, files: &[String], named: &[String]) -> Result<()> {
    for file in files {
        loader.load_file(file)?;
    }
    for name in named {
        if !loader.load(name) {
            log::warn!(
                "The ramdisk has no module {name}, which firn.modules asks for: build it with --available-module {name}"
            );
        }
    }
    Ok(())
}
