//! The release of the running kernel.

use anyhow::{Context, Result};

/// The release, as `uname -r` prints it.
///
/// # Errors
///
/// None in practice: those of uname(2).
pub fn kernel_release() -> Result<String> {
    let name = nix::sys::utsname::uname().context("uname")?;
    Ok(name.release().to_string_lossy().into_owned())
}
