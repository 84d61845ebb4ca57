//! The host id, which ZFS and others read from `/etc/hostid` when their module is loaded.

use crate::boot::kernel::mount::make_directory;
use crate::boot::parameters::options::Options;
use crate::boot::plan::Plan;
use crate::contract::plan::FILES;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where programs and modules look for it: four bytes in the machine's order (`man 3 gethostid`, glibc).
const PATH: &str = "/etc/hostid";

/// Writes the host id into the initramfs, as NixOS' scripted stage 1 does: that of the command line, or of the host's own
/// files, or of the plan. One from the command line becomes one of the host's files, so that the system has it, too.
///
/// # Errors
///
/// A file that cannot be read or written.
pub fn set(options: &Options, plan: &Plan) -> Result<()> {
    let of_host = PathBuf::from(format!("{FILES}{PATH}"));
    if let Some(id) = options.host_id {
        write(&of_host, &id.to_ne_bytes())?;
    }
    match fs::read(&of_host) {
        Ok(bytes) => write(Path::new(PATH), &bytes),
        Err(_) => plan.host_id.map_or(Ok(()), |id| write(Path::new(PATH), &id.to_ne_bytes())),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    make_directory(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(path, bytes).with_context(|| format!("writing the host id to {}", path.display()))
}
