//! Kernel modules for the ramdisk: what mounting the store needs, in load order, decompressed.
//!
//! Raw because the ramdisk's segment is compressed as a whole, and because not every kernel decompresses modules itself.

use super::toplevel::System;
use crate::modules_dep::{ModulesDep, without_suffix};
use crate::plan::REQUIRED_MODULES;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// A kernel module, ready to load.
#[derive(Debug)]
pub struct Module {
    /// Its absolute path in the ramdisk.
    pub path: String,
    /// The `.ko` file.
    pub contents: Vec<u8>,
}

/// Collects the required modules of a system's kernel and what they need, in load order.
///
/// # Errors
///
/// A required module that is neither a file nor built in, or a file that cannot be read.
pub fn collect(system: &System) -> Result<Vec<Module>> {
    let Some(directory) = &system.modules else {
        return Ok(Vec::new()); // a kernel without modules has all it has built in
    };
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path)
            .with_context(|| format!("reading {}, which depmod makes where the kernel is built", path.display()))
    };
    let (dep, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let order = ModulesDep::parse(&dep, &builtin).load_order(&REQUIRED_MODULES);
    ensure!(
        order.missing.is_empty(),
        "the kernel {} has no {}, neither as a module nor built in (looked in {}); boot a kernel that is configured with it",
        system.kernel_release,
        order.missing.join(" and no "),
        directory.display()
    );
    order
        .files
        .into_iter()
        .map(|file| {
            let source = directory.join(file);
            let contents = decompressed(&source).with_context(|| format!("reading the module {}", source.display()))?;
            let path = format!("/lib/modules/{}/{}.ko", system.kernel_release, without_suffix(file));
            Ok(Module { path, contents })
        })
        .collect()
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut contents = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => liblzma::read::XzDecoder::new(file).read_to_end(&mut contents)?,
        Some("zst") => zstd::Decoder::new(file)?.read_to_end(&mut contents)?,
        Some("ko") => file.read_to_end(&mut contents)?,
        _ => anyhow::bail!("the name ends neither in .ko nor in .ko.xz or .ko.zst"),
    };
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::PathBuf;

    /// A kernel's module directory with these files, whatever is in them.
    fn system(directory: &Path, dep: &str, builtin: &str) -> System {
        fs::write(directory.join("modules.dep"), dep).unwrap();
        fs::write(directory.join("modules.builtin"), builtin).unwrap();
        System {
            toplevel: PathBuf::new(),
            init: String::new(),
            kernel: PathBuf::new(),
            kernel_release: "6.9".into(),
            kernel_params: Vec::new(),
            modules: Some(directory.into()),
            label: String::new(),
            platform: String::new(),
            host_id: None,
        }
    }

    #[test]
    fn compressed_files_arrive_raw_and_built_in_ones_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut xz = liblzma::write::XzEncoder::new(File::create(path.join("squashfs.ko.xz")).unwrap(), 6);
        xz.write_all(b"squashfs").unwrap();
        xz.finish().unwrap();
        fs::write(path.join("zlib.ko.zst"), zstd::encode_all(&b"zlib"[..], 3).unwrap()).unwrap();
        fs::write(path.join("overlay.ko"), b"overlay").unwrap();
        let system = system(path, "squashfs.ko.xz: zlib.ko.zst\nzlib.ko.zst:\noverlay.ko:\n", "kernel/loop.ko\n");
        let modules: Vec<_> =
            collect(&system).unwrap().into_iter().map(|module| (module.path, module.contents)).collect();
        assert_eq!(
            modules,
            [
                ("/lib/modules/6.9/zlib.ko".into(), b"zlib".to_vec()),
                ("/lib/modules/6.9/squashfs.ko".into(), b"squashfs".to_vec()),
                ("/lib/modules/6.9/overlay.ko".into(), b"overlay".to_vec()),
            ]
        );
    }

    #[test]
    fn a_missing_module_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = collect(&system(directory.path(), "", "kernel/loop.ko\n")).unwrap_err().to_string();
        assert!(error.contains("6.9 has no squashfs and no overlay, neither"), "{error}");
    }
}
