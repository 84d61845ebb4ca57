//! Kernel modules for the ramdisk: the modules that every boot loads (for the store, and those that the user names), in load order;
//! and the modules that stage 1 loads when it finds a device for them, with the index for that.
//!
//! They are decompressed because the segment of the ramdisk is compressed as a whole, and because not every kernel decompresses
//! modules.

use crate::build::ramdisk::file::RamdiskFile;
use crate::build::store::packing::Format;
use crate::build::system::toplevel::NixosSystem;
use crate::contract::plan::REQUIRED_MODULES;
use crate::formats::module_alias;
use crate::formats::modules::{Index, MODINFO, Texts, module_name, packed, without_suffix};
use crate::host::progress::Progress;
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
/// (`available`), each with its dependencies. `forced` and `available` are names or aliases. It says which of them need no file.
///
/// # Errors
///
/// A module that is neither a file nor built in, or a file that cannot be read.
pub fn collect(
    system: &NixosSystem,
    format: Format,
    forced: &[String],
    available: &[String],
    progress: Progress,
) -> Result<Modules> {
    let Some(directory) = system.modules.as_deref().filter(|directory| is_of_modules(directory)) else {
        ensure!(
            forced.is_empty() && available.is_empty(),
            "the system has no kernel modules, only those that are built into its kernel: leave out --module and \
             --available-module"
        );
        return Ok(Modules::default());
    };
    let texts = read_texts(directory)?;
    let modinfo = read(&directory.join(MODINFO), true)?;
    let index = Index::parse(&texts);
    let users: Vec<_> = forced.iter().chain(available).map(String::as_str).collect();
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
    if let Some(name) = all.missing.iter().find(|name| !module_alias::is_built_in(&modinfo, name)) {
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
    if let Some(note) = built_in_note(&index, &users) {
        progress.say(&note);
    }

    let below = |file: &str| format!("/lib/modules/{}/{file}", system.kernel_release);
    let raw = |file: &str| below(&packed(file));
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
        let contents = module_alias::only_aliases(&modinfo);
        if !contents.is_empty() {
            files.push(RamdiskFile { path: below(MODINFO), contents });
        }
    }
    Ok(Modules { load: load.files.into_iter().map(raw).collect(), files })
}

/// The sentence about the modules of the user that are built into the kernel.
fn built_in_note(index: &Index<'_>, names: &[&str]) -> Option<String> {
    let mut built_in: Vec<_> =
        names.iter().copied().filter(|name| index.load_order(&[name]).files.is_empty()).collect();
    built_in.dedup();
    match built_in.as_slice() {
        [] => None,
        [name] => Some(format!("{name} is built into the kernel: the ramdisk needs no file for it")),
        [names @ .., last] => Some(format!(
            "{} and {last} are built into the kernel: the ramdisk needs no files for them",
            names.join(", ")
        )),
    }
}

/// Whether a directory is that of a kernel which can load modules. Some packages put the kernel itself into one that has nothing else.
fn is_of_modules(directory: &Path) -> bool {
    ["modules.dep", "modules.builtin"].iter().any(|name| directory.join(name).exists()) || has_files(directory)
}

/// Whether there are modules in a directory or below it. The links `build` and `source` lead to the kernel's source.
fn has_files(directory: &Path) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let is_source = name == "build" || name == "source";
        if path.is_dir() { !is_source && has_files(&path) } else { without_suffix(&name) != name }
    })
}

/// Reads the files that depmod writes. Not every version of it writes the aliases and soft dependencies. A kernel with everything
/// built in has `modules.builtin`, and depmod may never have run for it.
fn read_texts(directory: &Path) -> Result<Texts> {
    Texts::read(|name| {
        let path = directory.join(name);
        let optional = match name {
            "modules.alias" | "modules.softdep" => true,
            "modules.dep" => !path.exists() && !has_files(directory),
            _ => false,
        };
        let contents = read(&path, optional)?;
        String::from_utf8(contents).with_context(|| format!("reading {}", path.display()))
    })
}

/// Reads a file about the kernel's modules. A missing file that is `optional` counts as empty.
fn read(path: &Path, optional: bool) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && optional => Ok(Vec::new()),
        other => {
            other.with_context(|| format!("reading {}, which depmod writes when the kernel is built", path.display()))
        }
    }
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut contents = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => liblzma::read::XzDecoder::new_multi_decoder(file).read_to_end(&mut contents)?,
        Some("zst") => zstd::Decoder::new(file)?.read_to_end(&mut contents)?,
        Some("gz") => flate2::read::MultiGzDecoder::new(file).read_to_end(&mut contents)?,
        Some("ko") => file.read_to_end(&mut contents)?,
        _ => bail!("the file name does not end in .ko, .ko.gz, .ko.xz or .ko.zst"),
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
        let modules = collect(&with_files(directory.path()), Format::Squashfs, &[], &[], Progress::Quiet).unwrap();
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

        let forced = collect(&system, Format::Squashfs, &names(&["virtio_blk", "loop"]), &[], Progress::Quiet).unwrap();
        assert_eq!(forced.load[3..], ["/lib/modules/6.9/virtio.ko", "/lib/modules/6.9/virtio-blk.ko"]);
        assert_eq!(packed(forced)[3..], drivers);

        let available = collect(&system, Format::Squashfs, &[], &names(&["virtio:d2v1"]), Progress::Quiet).unwrap();
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

        let error =
            collect(&system, Format::Squashfs, &names(&["virtio-blx"]), &[], Progress::Quiet).unwrap_err().to_string();
        assert!(error.contains("no module virtio-blx,") && error.ends_with("did you mean virtio_blk?"), "{error}");
        let error =
            collect(&NixosSystem { modules: None, ..system }, Format::Squashfs, &[], &names(&["x"]), Progress::Quiet)
                .unwrap_err()
                .to_string();
        assert!(error.contains("leave out --module and --available-module"), "{error}");
    }

    #[test]
    fn a_9_modules_that_are_compressed_by_gzip_or_lie_elsewhere_are_packed() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = directory.path();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(b"from gzip").unwrap();
        fs::write(path.join("squashfs.ko.gz"), gz.finish().unwrap()).unwrap();
        fs::write(elsewhere.path().join("overlay.ko"), "from elsewhere").unwrap();
        let overlay = elsewhere.path().join("overlay.ko").to_str().unwrap().to_owned();
        let system = system(path, &format!("squashfs.ko.gz:\n{overlay}: squashfs.ko.gz\n"), "kernel/loop.ko\n");
        let modules = collect(&system, Format::Squashfs, &[], &["overlay".into()], Progress::Quiet).unwrap();
        let files = packed(modules);
        let packed_overlay = format!("/lib/modules/6.9{overlay}");
        assert_eq!(
            files[..3],
            owned([
                ("/lib/modules/6.9/squashfs.ko", "from gzip"),
                (&packed_overlay, "from elsewhere"),
                ("/lib/modules/6.9/modules.dep", &format!("squashfs.ko:\n{}: squashfs.ko\n", &overlay[1..])),
            ])
        );
        fs::write(path.join("squashfs.ko.gz"), "no gzip").unwrap();
        let error = collect(&system, Format::Squashfs, &[], &[], Progress::Quiet).unwrap_err();
        assert!(format!("{error:#}").starts_with("reading the module"), "{error:#}");
    }

    #[test]
    fn a_9_the_builder_names_what_is_built_in() {
        let directory = tempfile::tempdir().unwrap();
        let system = with_files(directory.path());
        let modinfo = b"loop.alias=block-major-7-*\0loop.author=\xff\0";
        fs::write(directory.path().join(MODINFO), modinfo).unwrap();
        let texts = read_texts(directory.path()).unwrap();
        let index = Index::parse(&texts);
        for (names, expected) in [
            (&["virtio_blk"][..], None),
            (&["loop"], Some("loop is built into the kernel: the ramdisk needs no file for it")),
            (
                &["loop", "virtio", "loop", "block-major-7-1"],
                Some("loop and block-major-7-1 are built into the kernel: the ramdisk needs no files for them"),
            ),
        ] {
            assert_eq!(built_in_note(&index, names).as_deref(), expected, "{names:?}");
        }
        let names = ["block-major-7-1", "virtio_blk"].map(String::from);
        let files = packed(collect(&system, Format::Squashfs, &names[..1], &names[1..], Progress::Quiet).unwrap());
        let modinfo =
            ("/lib/modules/6.9/modules.builtin.modinfo".to_owned(), "loop.alias=block-major-7-*\0".to_owned());
        assert_eq!(files.last(), Some(&modinfo));
        let error = collect(&system, Format::Squashfs, &["block-major-8-1".into()], &[], Progress::Quiet).unwrap_err();
        assert!(error.to_string().contains("no module block-major-8-1"), "{error}");
    }

    #[test]
    fn b_11_a_kernel_with_everything_built_in_needs_no_depmod() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let builtin = "kernel/loop.ko\nkernel/squashfs.ko\nkernel/overlay.ko\nkernel/virtio_blk.ko\n";
        let system = system(path, "", builtin);
        let collect = |named: &[&str]| {
            let names: Vec<_> = named.iter().map(ToString::to_string).collect();
            collect(&system, Format::Squashfs, &names, &[], Progress::Quiet)
                .map(|modules| (modules.load, modules.files.len()))
        };
        let nothing = || assert_eq!(collect(&["virtio_blk"]).unwrap(), (vec![], 0));
        let fails = |named: &[&str], expected: &str| {
            let error = format!("{:#}", collect(named).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        nothing();
        fs::remove_file(path.join("modules.dep")).unwrap();
        // The kernel's source may have modules of other kernels.
        fs::create_dir_all(path.join("build/fs")).unwrap();
        fs::write(path.join("build/fs/x.ko"), "").unwrap();
        nothing();
        fails(&["dm_mod"], "has no module dm_mod");
        fs::create_dir(path.join("kernel")).unwrap();
        fs::write(path.join("kernel/x.ko.xz"), "").unwrap();
        fails(&[], "modules.dep, which depmod writes");

        // A kernel that cannot load modules.
        fs::remove_file(path.join("kernel/x.ko.xz")).unwrap();
        fs::remove_file(path.join("modules.builtin")).unwrap();
        fs::write(path.join("vmlinuz"), "").unwrap();
        assert_eq!(collect(&[]).unwrap(), (vec![], 0));
        fails(&["loop"], "leave out --module and --available-module");
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
            let error = collect(&system, Format::Squashfs, &[], &[], Progress::Quiet).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
