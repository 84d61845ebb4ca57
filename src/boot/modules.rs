//! The kernel modules that every boot loads.

use crate::boot::kernel::modules::Loader;
use anyhow::Result;
use std::path::Path;

/// Loads the modules of the plan (`files`) in their order, then the modules that the command line names (`named`).
///
/// # Errors
///
/// A module of the plan that cannot be opened or that the kernel refuses. Such a module of the command line is only a warning.
pub fn load(loader: &mut Loader<'_>, files: &[String], named: &[String]) -> Result<()> {
    for file in files {
        loader.load_file(file)?;
    }
    for name in named {
        if loader.load(name) || loader.is_built_in(name) {
            continue;
        }
        if Path::new("/proc/modules").exists() {
            log::warn!(
                "The ramdisk has no module {name}, which firn.modules= names; build it with --available-module {name}"
            );
        } else {
            log::info!("Not loading {name}, which firn.modules= names: this kernel cannot load modules");
        }
    }
    Ok(())
}
