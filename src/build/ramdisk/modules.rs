//! Kernel modules for the ramdisk: the modules that every boot loads (for the store, and those that the user names), in load order;
//! and the modules that stage 1 loads when it finds a device for them, with the index for that.
//!
//! They are decompressed because the segment of the ramdisk is compressed as a whole, and because not every kernel decompresses
//! modules.

use crate::build::ramdisk::file::RamdiskFile;
use crate::build::store::packing::Format;
use crate::build::system::toplevel::NixosSystem;
use crate::contract::plan::REQUIRED_MODULES;
use crate::formats::modules::{Index, Texts, module_name, without_suffix};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

/// The kernel modules of a ramdisk.
#[derive(Debug, Default)]
pub struct Modules {
    /// The modules that every boot loads, in this order: absolute paths in the ramdisk.
    pub load: Vec<String>,
    /// All files, including those of the index.
    pub files: Vec<RamdiskFile>,
}

/// Collects the modules that stage 1 requires, those that every boot loads (`forced`), and those that stage 1 loads for a device
/// (`available`), each with its dependencies. `forced` and `available` are names or aliases.
///
/// # Errors
///
/// A module that is neither a file nor built in, or a file that cannot be read.
pub fn collect(system: &NixosSystem, format: Format, forced: &[String], available: &[String]) -> Result<Modules> {
    let Some(directory) = &system.modules else {
        ensure!(
            forced.is_empty() && available.is_empty(),
            "the system has no kernel modules, only those that are built into its kernel: leave out --module and \
             --available-module"
        );
        return Ok(Modules::default());
    };
    let texts = read_texts(directory)?;
    let index = Index::parse(&texts);
    let erofs = system.etc_overlay.then_some("erofs");
    // In the order of the constant, with the file system of the image instead of squashfs.
    let required = REQUIRED_MODULES.into_iter().map(|name| if name == "squashfs" { format.name() } else { name });
    let required: Vec<_> = required.chain(erofs).collect();
    let forced: Vec<_> = required.iter().copied().chain(forced.iter().map(String::as_str)).collect();
    let required = index.load_order(&required);
    ensure!(
        required.missing.is_empty(),
        "the kernel {} has no {}, neither as a module nor built in (searched {}); boot a kernel that is configured with it",
        system.kernel_release,
        required.missing.join(" and no "),
        directory.display()
    );
    let all: Vec<_> = forced.iter().copied().chain(available.iter().map(String::as_str)).collect();
    let (load, all) = (index.load_order(&forced), index.load_order(&all));
    if let Some(name) = all.missing.first() {
        let module = module_name(name);
        let nearest =
            index.names().min_by_key(|other| (strsim::levenshtein(other, &module), *other)).unwrap_or_default();
        bail!(
            "the kernel {} has no module {name}, neither as a file nor built in nor as an alias (searched {}); did you mean \
             {nearest}?",
            system.kernel_release,
            directory.display()
        );
    }

    let below = |file: &str| format!("/lib/modules/{}/{file}", system.kernel_release);
    let raw = |file: &str| below(without_suffix(file)) + ".ko";
    let mut files = Vec::new();
    for file in &all.files {
        let source = directory.join(file);
        let contents = decompressed(&source).with_context(|| format!("reading the module {}", source.display()))?;
        files.push(RamdiskFile { path: raw(file), contents });
    }
    // Stage 1 searches for devices if the ramdisk has an index.
    if !available.is_empty() {
        let part = texts.only(&all.files);
        files.extend(part.named().map(|(name, text)| RamdiskFile { path: below(name), contents: text.into() }));
    }
    Ok(Modules { load: load.files.into_iter().map(raw).collect(), files })
}

/// Reads the files that depmod writes. Not every version of it writes the aliases and soft dependencies.
fn read_texts(directory: &Path) -> Result<Texts> {
    Texts::read(|name| {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Err(error)
                if error.kind() == ErrorKind::NotFound && matches!(name, "modules.alias" | "modules.softdep") =>
            {
                Ok(String::new())
            }
            other => other
                .with_context(|| format!("reading {}, which depmod writes when the kernel is built", path.display())),
        }
    })
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut contents = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => liblzma::read::XzDecoder::new(file).read_to_end(&mut contents)?,
        Some("zst") => zstd::Decoder::new(file)?.read_to_end(&mut contents)?,
        Some("ko") => file.read_to_end(&mut contents)?,
        _ => bail!("the file name does not end in .ko, .ko.xz or .ko.zst"),
    };
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::kind::Kind;
    use std::io::Write;
    use std::path::PathBuf;

    /// A system whose kernel has a module directory with these two files.
    fn system(directory: &Path, dep: &str, builtin: &str) -> NixosSystem {
        fs::write(directory.join("modules.dep"), dep).unwrap();
        fs::write(directory.join("modules.builtin"), builtin).unwrap();
        NixosSystem {
            toplevel: PathBuf::new(),
            init: String::new(),
            kernel: PathBuf::new(),
            kernel_release: "6.9".into(),
            kernel_params: Vec::new(),
            modules: Some(directory.into()),
            label: String::new(),
            platform: String::new(),
            host_id: None,
            kind: Kind::NixosInit,
            interpreter: None,
            etc_overlay: false,
        }
    }

    fn packed(modules: Modules) -> Vec<(String, String)> {
        let file = |file: RamdiskFile| (file.path, String::from_utf8(file.contents).unwrap());
        modules.files.into_iter().map(file).collect()
    }

    /// A system whose modules squashfs and zlib are compressed, with the drivers of a disk.
    fn with_files(path: &Path) -> NixosSystem {
        let mut xz = liblzma::write::XzEncoder::new(File::create(path.join("squashfs.ko.xz")).unwrap(), 6);
        xz.write_all(b"squashfs").unwrap();
        xz.finish().unwrap();
        fs::write(path.join("zlib.ko.zst"), zstd::encode_all(&b"zlib"[..], 3).unwrap()).unwrap();
        for name in ["overlay", "virtio-blk", "virtio"] {
            fs::write(path.join(name).with_extension("ko"), name).unwrap();
        }
        fs::write(path.join("modules.alias"), "alias virtio:d2v* virtio_blk\nalias pci:x other\n").unwrap();
        let dep = "squashfs.ko.xz: zlib.ko.zst\nzlib.ko.zst:\noverlay.ko:\nvirtio-blk.ko: virtio.ko\nvirtio.ko:\n";
        system(path, dep, "kernel/loop.ko\n")
    }

    const REQUIRED: [(&str, &str); 3] = [
        ("/lib/modules/6.9/zlib.ko", "zlib"),
        ("/lib/modules/6.9/squashfs.ko", "squashfs"),
        ("/lib/modules/6.9/overlay.ko", "overlay"),
    ];

    fn owned<const N: usize>(files: [(&str, &str); N]) -> Vec<(String, String)> {
        files.map(|(path, contents)| (path.into(), contents.into())).into()
    }

    #[test]
    fn compressed_files_arrive_raw_and_built_in_ones_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let modules = collect(&with_files(directory.path()), Format::Squashfs, &[], &[]).unwrap();
        assert_eq!(modules.load, REQUIRED.map(|(path, _)| path));
        assert_eq!(packed(modules), owned(REQUIRED));
    }

    #[test]
    fn modules_of_the_user() {
        let directory = tempfile::tempdir().unwrap();
        let system = with_files(directory.path());
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let drivers =
            owned([("/lib/modules/6.9/virtio.ko", "virtio"), ("/lib/modules/6.9/virtio-blk.ko", "virtio-blk")]);

        let forced = collect(&system, Format::Squashfs, &names(&["virtio_blk", "loop"]), &[]).unwrap();
        assert_eq!(forced.load[3..], ["/lib/modules/6.9/virtio.ko", "/lib/modules/6.9/virtio-blk.ko"]);
        assert_eq!(packed(forced)[3..], drivers);

        let available = collect(&system, Format::Squashfs, &[], &names(&["virtio:d2v1"])).unwrap();
        assert_eq!(available.load, REQUIRED.map(|(path, _)| path));
        let files = packed(available);
        assert_eq!(files[3..5], drivers);
        let dep = "squashfs.ko: zlib.ko\nzlib.ko:\noverlay.ko:\nvirtio-blk.ko: virtio.ko\nvirtio.ko:\n";
        assert_eq!(
            files[5..],
            owned([
                ("/lib/modules/6.9/modules.dep", dep),
                ("/lib/modules/6.9/modules.builtin", "kernel/loop.ko\n"),
                ("/lib/modules/6.9/modules.alias", "alias virtio:d2v* virtio_blk\n"),
                ("/lib/modules/6.9/modules.softdep", ""),
            ])
        );

        let error = collect(&system, Format::Squashfs, &names(&["virtio-blx"]), &[]).unwrap_err().to_string();
        assert!(error.contains("no module virtio-blx,") && error.ends_with("did you mean virtio_blk?"), "{error}");
        let error = collect(&NixosSystem { modules: None, ..system }, Format::Squashfs, &[], &names(&["x"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("leave out --module and --available-module"), "{error}");
    }

    #[test]
    fn a_missing_module_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut system = system(directory.path(), "", "kernel/loop.ko\n");
        for (etc_overlay, expected) in [
            (false, "6.9 has no squashfs and no overlay, neither"),
            (true, "6.9 has no squashfs and no overlay and no erofs"),
        ] {
            system.etc_overlay = etc_overlay;
            let error = collect(&system, Format::Squashfs, &[], &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
