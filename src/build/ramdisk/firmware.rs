//! The firmware that kernel modules name, for the ramdisk: a driver that loads without it fails and is not tried again.
//!
//! As in nixpkgs' makeModulesClosure (`pkgs/build-support/kernel/modules-closure.sh`).

use crate::build::ramdisk::file::RamdiskFile;
use crate::formats::module_alias::fits;
use crate::host::file;
use anyhow::{Context, Result};
use object::{Object, ObjectSection};
use std::fs;
use std::path::{Component, Path};

/// Where the kernel looks for firmware (`fw_path` of `drivers/base/firmware_loader/main.c`).
const DIRECTORY: &str = "/lib/firmware";

/// What the kernel adds to the name of a file that is compressed.
const SUFFIXES: [&str; 3] = ["", ".zst", ".xz"];

/// The names of the firmware that a module may ask for, relative to the directory of firmware. They may be patterns.
#[must_use]
pub fn named_by(module: &[u8]) -> Vec<String> {
    let section = object::File::parse(module).ok().and_then(|file| {
        let section = file.section_by_name(".modinfo")?;
        section.data().ok()
    });
    let records = section.unwrap_or_default().split(|byte| *byte == 0);
    let names = records.filter_map(|record| str::from_utf8(record.strip_prefix(b"firmware=")?).ok());
    // A name is that of a file below the directory.
    let is_below = |name: &&str| Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    names.filter(is_below).map(Into::into).collect()
}

/// The files for these names that the system has.
///
/// # Errors
///
/// A file that cannot be read.
pub fn collect(directory: &Path, names: &[String]) -> Result<Vec<RamdiskFile>> {
    let mut files = Vec::new();
    for name in names.iter().flat_map(|name| matching(directory, name)) {
        // Compressed as it is: the kernel of the system reads it.
        let found = SUFFIXES.iter().map(|suffix| format!("{name}{suffix}")).find(|name| directory.join(name).is_file());
        if let Some(name) = found {
            let path = directory.join(&name);
            let contents = file::read(&path)
                .with_context(|| format!("reading the firmware {}; build the system again", path.display()))?;
            files.push(RamdiskFile { path: format!("{DIRECTORY}/{name}"), contents });
        }
    }
    Ok(files)
}

/// The names that a name stands for: itself, or the files that fit it if it is a pattern such as `brcm/*-sdio.*.bin`.
fn matching(directory: &Path, name: &str) -> Vec<String> {
    let (parent, file) = name.rsplit_once('/').map_or(("", name), |(parent, file)| (parent, file));
    if !file.contains(['*', '?', '[']) {
        return vec![name.into()];
    }
    let entries = fs::read_dir(directory.join(parent)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let plain = names
        .filter(|name| SUFFIXES.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|name| fits(file, name))));
    plain.map(|name| Path::new(parent).join(name).to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, write};

    /// A module with this text for its `.modinfo`.
    fn module(modinfo: &[u8]) -> Vec<u8> {
        let mut object = write::Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let section = object.add_section(Vec::new(), b".modinfo".to_vec(), SectionKind::ReadOnlyData);
        object.append_section_data(section, modinfo, 1);
        object.write().unwrap()
    }

    #[test]
    fn d_2_firmware_that_modules_name() {
        let modinfo =
            b"license=GPL\0firmware=amdgpu/a.bin\0firmware=../../etc/shadow\0firmware=/etc/shadow\0firmware=b/*.fw\0\
            firmware=\xff\0parm=firmware=x\0firmware=gone.bin\0firmware=c.ucode\0";
        let names = named_by(&module(modinfo));
        assert_eq!(names, ["amdgpu/a.bin", "b/*.fw", "gone.bin", "c.ucode"]);
        for other in [&b""[..], b"firmware=x\0", &module(modinfo)[..99]] {
            assert_eq!(named_by(other), Vec::<String>::new());
        }

        let work = tempfile::tempdir().unwrap();
        for (name, contents) in [
            ("amdgpu/a.bin.zst", "a"),
            ("b/1.fw", "1"),
            ("b/2.fw.xz", "2"),
            ("b/3.bin", "3"),
            ("c.ucode", "c"),
            ("d", "d"),
        ] {
            let path = work.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let mut files: Vec<_> = collect(work.path(), &names)
            .unwrap()
            .into_iter()
            .map(|file| (file.path, String::from_utf8(file.contents).unwrap()))
            .collect();
        files.sort();
        let expected = [("amdgpu/a.bin.zst", "a"), ("b/1.fw", "1"), ("b/2.fw.xz", "2"), ("c.ucode", "c")];
        assert_eq!(files, expected.map(|(name, contents)| (format!("/lib/firmware/{name}"), contents.to_owned())));
    }
}
