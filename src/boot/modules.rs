//! Kernel modules, by `finit_module(2)`.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::File;
use std::path::Path;

/// `MODULE_INIT_COMPRESSED_FILE` (kernel 5.17, include/uapi/linux/module.h): the kernel decompresses the file, if it was
/// built to. firn's own ramdisks hold decompressed modules; others do not.
const COMPRESSED_FILE: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Loads modules in the order given; one that is loaded already is no error.
///
/// # Errors
///
/// A file that cannot be opened or that the kernel refuses.
pub fn load(files: &[String]) -> Result<()> {
    for file in files {
        log::info!("Loading {file}");
        load_one(file).with_context(|| format!("loading the kernel module {file}"))?;
    }
    Ok(())
}

fn load_one(file: &str) -> Result<()> {
    let compressed = Path::new(file).extension().is_some_and(|extension| extension != "ko");
    let flags = if compressed { COMPRESSED_FILE } else { ModuleInitFlags::empty() };
    let module = File::open(file).context("the ramdisk does not have it; build the ramdisk again")?;
    match finit_module(module, c"", flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).context(match errno {
            Errno::ENOEXEC => "the file is no module of this kernel; build the ramdisk with the modules of this kernel",
            Errno::EKEYREJECTED | Errno::EPERM => {
                "this kernel takes signed modules only (Secure Boot, lockdown= or module.sig_enforce), and not this one; \
                 build the ramdisk with the modules that belong to the kernel, or lift the restriction"
            }
            Errno::EOPNOTSUPP if compressed => "this kernel cannot decompress modules; build the ramdisk with firn",
            _ => "the kernel refuses it; its reason is in the kernel log",
        }),
    }
}
