//! The release of the running kernel.

use anyhow::{Context, Result};

/// The release, as `uname -r` prints it.
///
/// # Errors
///
/// An error of uname(2): none in practice.
pub fn kernel_release() -> Result<String> {
    let name = nix::sys::utsname::uname().context("uname(2)")?;
    Ok(name.release().to_string_lossy().into_owned())
}
