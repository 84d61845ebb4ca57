//! Kernel modules for the ramdisk: the modules that every boot loads (for the store, and those that the user names), in load order;
//! and the modules that stage 1 loads when it finds a device for them, with the index for that.
//!
//! They are decompressed because the segment of the ramdisk is compressed as a whole, and because not every kernel decompresses
//! modules.

use crate::build::ramdisk::file::RamdiskFile;
use crate::build::ramdisk::firmware;
use crate::build::store::packing::Format;
use crate::build::system::modprobe::{LeftOut, ModprobeConfig};
use crate::build::system::toplevel::NixosSystem;
use crate::contract::plan::REQUIRED_MODULES;
use crate::formats::module_alias;
use crate::formats::modules::{Index, MODINFO, Texts, module_name, packed, without_suffix};
use crate::host::file;
use crate::host::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// The kernel modules of a ramdisk.
#[derive(Debug, Default)]
pub struct Modules {
    /// The modules that every boot loads, in this order: absolute paths in the ramdisk.
    pub load: Vec<String>,
    /// All files, including those of the index and the firmware.
    pub files: Vec<RamdiskFile>,
    /// The parameters of modules, as in the plan.
    pub options: Vec<String>,
}

/// Collects the modules that stage 1 requires, those that every boot loads (`forced`), and those that stage 1 loads for a device
/// (`available`), each with its dependencies. `forced` and `available` are names or aliases. It says which of them need no file.
///
/// # Errors
///
/// A module that is neither a file nor built in, or a file that cannot be read. With `allow_missing`, as nixpkgs' makeModulesClosure has it
/// (pkgs/build-support/kernel/modules-closure.sh), such a module is a warning, unless stage 1 itself needs it.
pub fn collect(
    system: &NixosSystem,
    format: Format,
    forced: &[String],
    available: &[String],
    allow_missing: bool,
    progress: Progress,
) -> Result<Modules> {
    let Some(directory) = system.modules.as_deref().filter(|directory| is_of_modules(directory)) else {
        if allow_missing {
            let names: Vec<_> = forced.iter().chain(available).map(String::as_str).collect();
            warn_missing(&names, &names[..forced.len()], progress);
            return Ok(Modules::default());
        }
        ensure!(
            forced.is_empty() && available.is_empty(),
            "the system has no kernel modules, only those that are built into its kernel: leave out --module and \
             --available-module, or give --allow-missing-modules"
        );
        return Ok(Modules::default());
    };
    let mut texts = read_texts(directory)?;
    if allow_missing {
        keep_present(directory, &mut texts);
    }
    let modinfo = read(&directory.join(MODINFO), true)?;
    let erofs = system.etc_overlay.then_some("erofs");
    // In the order of the constant, with the file system of the image instead of squashfs.
    let required = REQUIRED_MODULES.into_iter().map(|name| if name == "squashfs" { format.name() } else { name });
    let required: Vec<_> = required.chain(erofs).collect();
    system.modprobe.apply(&mut texts, &required);
    let index = Index::parse(&texts);
    let user_forced = without_left_out(forced, &system.modprobe, true, progress);
    let available = without_left_out(available, &system.modprobe, false, progress);
    let users: Vec<_> = user_forced.iter().chain(&available).copied().collect();
    let forced: Vec<_> = required.iter().chain(&user_forced).copied().collect();
    let required = index.load_order(&required);
    ensure!(
        required.missing.is_empty(),
        "the kernel {} has no {}, neither as a module nor built in (searched {}); boot a kernel that is configured with it",
        system.kernel_release,
        required.missing.join(" and no "),
        directory.display()
    );
    let all: Vec<_> = forced.iter().chain(&available).copied().collect();
    let (load, all) = (index.load_order(&forced), index.load_order(&all));
    let missing: Vec<_> =
        all.missing.iter().copied().filter(|name| !module_alias::is_built_in(&modinfo, name)).collect();
    if allow_missing {
        warn_missing(&missing, &user_forced, progress);
    } else if !missing.is_empty() {
        bail!("{}", missing_modules(&missing, &index, &system.kernel_release, directory));
    }
    let users: Vec<_> = users.into_iter().filter(|name| !missing.contains(name)).collect();
    if let Some(note) = built_in_note(&index, &users) {
        progress.say(&note);
    }

    let below = |file: &str| format!("/lib/modules/{}/{file}", system.kernel_release);
    let raw = |file: &str| below(&packed(file));
    let mut files = Vec::new();
    for file in &all.files {
        files.push(RamdiskFile { path: raw(file), contents: contents(&directory.join(file))? });
    }
    let options = system.modprobe.options_of(&all.files);
    let firmware = firmware_of(&files, system.firmware.as_deref(), &user_forced, progress)?;
    // Stage 1 searches for devices if the ramdisk has an index.
    if !available.is_empty() {
        let part = texts.only(&all.files);
        files.extend(part.named().map(|(name, text)| RamdiskFile { path: below(name), contents: text.into() }));
        let contents = module_alias::only_aliases(&modinfo);
        if !contents.is_empty() {
            files.push(RamdiskFile { path: below(MODINFO), contents });
        }
    }
    files.extend(firmware);
    Ok(Modules { load: load.files.into_iter().map(raw).collect(), files, options })
}

/// The modules of a list that the system's modprobe.d does not leave out. Those that every boot was to load are `forced`.
fn without_left_out<'a>(
    names: &'a [String],
    config: &ModprobeConfig,
    forced: bool,
    progress: Progress,
) -> Vec<&'a str> {
    let is_kept = |name: &&str| {
        let reason = match config.left_out(name) {
            None => return true,
            Some(LeftOut::Wanted) if forced => "leaves it out (blacklist, or install)".into(),
            Some(LeftOut::Wanted) => return false,
            Some(LeftOut::Command(command)) => {
                format!("has a command for it that only the running system has (install {command})")
            }
        };
        progress.say(&format!("Warning: stage 1 does not load {name}: the system's modprobe.d {reason}"));
        false
    };
    names.iter().map(String::as_str).filter(is_kept).collect()
}

/// The firmware that the modules in `files` name. A module that every boot loads (`forced`) is named if the system has none for it.
fn firmware_of(
    files: &[RamdiskFile],
    directory: Option<&Path>,
    forced: &[&str],
    progress: Progress,
) -> Result<Vec<RamdiskFile>> {
    let mut firmware = Vec::new();
    for module in files {
        let names = firmware::named_by(&module.contents);
        let found = directory.map_or_else(|| Ok(Vec::new()), |directory| firmware::collect(directory, &names))?;
        let name = module_name(&module.path);
        if let (Some(first), true) =
            (names.first(), found.is_empty() && forced.iter().any(|forced| module_name(forced) == name))
        {
            progress.say(&format!(
                "Warning: {name} asks for firmware such as {first}, and the system has none for it: add it to hardware.firmware, \
                 or set hardware.enableRedistributableFirmware"
            ));
        }
        firmware.extend(found);
    }
    // Several modules may name the same file.
    firmware.sort_by(|one, other| one.path.cmp(&other.path));
    firmware.dedup_by(|one, other| one.path == other.path);
    Ok(firmware)
}

/// The module whose name differs from `name` by a slip of the keyboard: by one character in three at most.
fn similar<'a>(index: &'a Index<'_>, name: &str) -> Option<&'a str> {
    let name = module_name(name);
    let distances = index.names().map(|other| (strsim::osa_distance(other, &name), other));
    distances.min().filter(|(distance, _)| distance * 3 <= name.chars().count()).map(|(_, other)| other)
}

/// The error for modules that the kernel does not have.
fn missing_modules(missing: &[&str], index: &Index<'_>, release: &str, directory: &Path) -> String {
    let mut seen = HashSet::new();
    let names: Vec<_> = missing.iter().copied().filter(|name| seen.insert(*name)).collect();
    let meant: Vec<_> = names
        .iter()
        .filter_map(|name| {
            let other = similar(index, name)?;
            Some(if names.len() == 1 { other.into() } else { format!("{other} for {name}") })
        })
        .collect();
    let (list, it) = match names.as_slice() {
        [first @ .., last] if !first.is_empty() => (format!("{} or {last}", first.join(", ")), "them"),
        names => (names.join(""), "it"),
    };
    let meant = if meant.is_empty() { String::new() } else { format!("did you mean {}? Or ", meant.join(", ")) };
    format!(
        "the kernel {release} has no module {list}, neither as a file nor built in nor as an alias (searched {}); {meant}build without \
         {it} with --allow-missing-modules (NixOS: netboot.firn.allowMissingModules)",
        directory.display()
    )
}

/// Names each module that the ramdisk does not get. Those that every boot was to load are `forced`.
fn warn_missing(missing: &[&str], forced: &[&str], progress: Progress) {
    let mut named = HashSet::new();
    for name in missing.iter().copied().filter(|name| named.insert(*name)) {
        let effect = if forced.contains(&name) {
            "no boot loads it, though --module names it"
        } else {
            "the ramdisk is built without it"
        };
        progress.say(&format!(
            "Warning: the kernel has no module {name}, neither as a file nor known to be built in: {effect}"
        ));
    }
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
    ["modules.dep", "modules.builtin", MODINFO].iter().any(|name| directory.join(name).exists()) || has_files(directory)
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
/// built in has `modules.builtin` or `modules.builtin.modinfo`, and depmod may never have run for it.
fn read_texts(directory: &Path) -> Result<Texts> {
    let texts = Texts::read(|name| -> Result<String> {
        let path = directory.join(name);
        let modinfo = directory.join(MODINFO);
        if name == "modules.builtin" && !path.exists() && modinfo.exists() {
            return Ok(module_alias::built_in(&read(&modinfo, false)?));
        }
        let optional = match name {
            "modules.alias" | "modules.softdep" => true,
            "modules.dep" => !path.exists() && !has_files(directory),
            _ => false,
        };
        let contents = read(&path, optional)?;
        String::from_utf8(contents).with_context(|| format!("reading {}; run depmod again", path.display()))
    })?;
    // The files get these paths in the ramdisk.
    if let Some(file) = texts.dep.split([':', ' ', '\n']).find(|file| file.split('/').any(|part| part == "..")) {
        bail!(
            "{}/modules.dep has the path {file:?}, and .. leads out of the directory of the modules: run depmod again",
            directory.display()
        );
    }
    Ok(texts)
}

/// Keeps the lines of `modules.dep` whose files are all there.
fn keep_present(directory: &Path, texts: &mut Texts) {
    let files = |line: &str| line.replacen(':', " ", 1).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let present: HashSet<_> = texts
        .dep
        .lines()
        .filter_map(|line| files(line).into_iter().next())
        .filter(|file| directory.join(file).exists())
        .collect();
    let kept = texts.dep.lines().filter(|line| files(line).iter().all(|file| present.contains(file)));
    texts.dep = kept.flat_map(|line| [line, "\n"]).collect();
}

/// Reads a file about the kernel's modules. A missing file that is `optional` counts as empty.
fn read(path: &Path, optional: bool) -> Result<Vec<u8>> {
    match file::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && optional => Ok(Vec::new()),
        other => other.with_context(|| {
            let next = if path.ends_with("modules.dep") {
                "which depmod writes; run depmod for this kernel, or build it again"
            } else {
                "which comes from the build of the kernel; install it with make modules_install"
            };
            format!("reading {}, {next}", path.display())
        }),
    }
}

/// The contents of a module, decompressed.
fn contents(path: &Path) -> Result<Vec<u8>> {
    decompressed(path).with_context(|| {
        format!("reading the module {}, which modules.dep lists; run depmod, or build the kernel again", path.display())
    })
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let mut file = file::regular(path)?;
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
mod tests;
