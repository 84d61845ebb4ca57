//! The host id. Modules such as ZFS read it from `/etc/hostid` when they are loaded.

use crate::boot::kernel::file;
use crate::boot::kernel::mount::make_directory;
use crate::boot::parameters::options::Options;
use crate::boot::plan::BootPlan;
use crate::contract::plan::FILES;
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The file that programs and modules read: four bytes in the byte order of the machine (`man 3 gethostid`, glibc).
const PATH: &str = "/etc/hostid";

/// Writes the host id into the initramfs, as NixOS' scripted stage 1 does. It comes from the command line, or from the files of the
/// host, or from the plan, in this order. A host id from the command line becomes a file of the host, so that the running system gets
/// it, too.
///
/// # Errors
///
/// A file that cannot be read or written.
pub fn set(options: &Options, plan: &BootPlan) -> Result<()> {
    let of_host = format!("{FILES}{PATH}");
    if let Some(id) = options.host_id {
        write(&of_host, &id.to_ne_bytes())?;
    }
    match file::check(&of_host).and_then(|()| fs::read(&of_host)) {
        Ok(bytes) => return write(PATH, &bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => log::warn!("Reading the host id of this host, {of_host}: {error}"),
    }
    plan.host_id.map_or(Ok(()), |id| write(PATH, &id.to_ne_bytes()))
}

fn write(path: &str, bytes: &[u8]) -> Result<()> {
    make_directory(Path::new(path).parent().unwrap_or(Path::new("/")))?;
    // A FIFO of the ramdisk would block.
    fs::remove_file(path)
        .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .and_then(|()| fs::write(path, bytes))
        .with_context(|| format!("writing the host id to {path}"))
}
