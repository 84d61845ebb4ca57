//! Files of an earlier output in the same directory: those that have to go, and those that must not be mixed with new ones.

use crate::build::output::checked::describe;
use crate::contract::manifest::{FILE, FileEntry, Manifest, is_image_name};
use crate::contract::place::ZERO_COPY;
use crate::host::file;
use crate::host::progress::Progress;
use anyhow::{Result, ensure};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// The script of iPXE.
const IPXE: &str = "netboot.ipxe";

/// The beginning of a boot script is searched for these words, in as many bytes.
const MADE_BY_FIRN: (&str, u64) = ("Made by firn", 1024);

/// Makes sure that the file `name` is none of a build that lies in a directory: its manifest would be wrong afterwards.
///
/// # Errors
///
/// A file of a build.
pub fn ensure_no_file_of_a_build(directory: &Path, name: &str) -> Result<()> {
    let of_build =
        manifest(directory).is_some_and(|build| name == FILE || build.files.iter().any(|file| &*file.name == name));
    ensure!(
        !of_build,
        "{} is a file of the build in {}, whose manifest would be wrong afterwards; give another place with --out",
        directory.join(name).display(),
        directory.display()
    );
    Ok(())
}

/// Makes sure that a directory has the manifest of no other subcommand than these.
///
/// # Errors
///
/// A manifest of `firn build`, or of another subcommand.
pub fn ensure_manifest_of(directory: &Path, trees: &[&str]) -> Result<()> {
    let found = manifest(directory).map(|found| found.tree).filter(|tree| !trees.contains(&tree.as_str()));
    ensure!(
        found.is_none(),
        "{} has the files of firn {}, whose manifest would be wrong afterwards; give another directory with --out",
        directory.display(),
        found.filter(|tree| !tree.is_empty()).as_deref().unwrap_or("build")
    );
    Ok(())
}

/// Makes sure that no boot script of another output stays beside the new files.
///
/// # Errors
///
/// A boot script that would start other files than those that it was made for.
pub fn ensure_no_mixture(directory: &Path, entries: &[FileEntry]) -> Result<()> {
    let new = |name: &str| entries.iter().find(|entry| entry.name == name);
    for script in [IPXE, "kexec-boot"] {
        let path = directory.join(script);
        if new(script).is_some() || !start(&path).unwrap_or_default().contains(MADE_BY_FIRN.0) {
            continue;
        }
        for name in ["bzImage", ZERO_COPY, "initrd", "initrd.gz"] {
            let old = directory.join(name);
            let Some(new) = new(name).filter(|_| old.exists()) else { continue };
            let old = describe(&old, Progress::Quiet)?;
            ensure!(
                (old.bytes, &old.sha256) == (new.bytes, &new.sha256),
                "{} was made for another {name} and would boot with the new one: delete the script, or give another directory with \
                 --out",
                path.display()
            );
        }
    }
    Ok(())
}

/// The store images of an earlier output in a directory that the new one lacks, and its file for zero copy: those of its manifest or its
/// iPXE script.
#[must_use]
pub fn stale_images(directory: &Path, new: &[&str]) -> Vec<String> {
    let mut images = if let Some(build) = manifest(directory) {
        build.files.into_iter().map(|file| file.name.into()).collect()
    } else {
        let script = start(&directory.join(IPXE)).unwrap_or_default();
        let lines = if script.contains(MADE_BY_FIRN.0) { script.lines() } else { "".lines() };
        let file = |line: &str| Some(line.strip_prefix("initrd ")?.split(' ').next()?.rsplit('/').next()?.to_owned());
        lines.filter_map(file).collect::<Vec<_>>()
    };
    // Nothing else: the manifest may be from somebody else, and these are names that firn gives.
    images.retain(|name| {
        let is_file = || fs::symlink_metadata(directory.join(name)).is_ok_and(|found| !found.is_dir());
        (is_image_name(name) || name == ZERO_COPY) && !new.contains(&name.as_str()) && is_file()
    });
    images
}

/// The manifest of a build in a directory. None if there is no manifest, or a file of this name from another program.
fn manifest(directory: &Path) -> Option<Manifest> {
    Manifest::read(directory).ok().filter(|manifest| !manifest.firn.is_empty())
}

/// The beginning of a text.
fn start(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    file::regular(path)?.take(MADE_BY_FIRN.1 * 64).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, sha256: &str) -> FileEntry {
        FileEntry { name: name.into(), bytes: 3, sha256: sha256.into() }
    }

    #[test]
    fn c_8_images_of_an_earlier_output_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["nix-store.squashfs", "nix-store-2.squashfs", "nix-store.erofs", "notes", "nix-store-x.erofs"] {
            fs::write(path(name), "").unwrap();
        }
        fs::create_dir(path("nix-store-3.squashfs")).unwrap();
        assert!(stale_images(directory.path(), &["initrd"]).is_empty());
        let script = "#!ipxe\n# Made by firn.\nkernel bzImage\ninitrd http://a/b/nix-store.squashfs /nix-store.squashfs mode=444\n\
                      initrd nix-store-2.squashfs /x\ninitrd nix-store-3.squashfs /y\ninitrd notes\n";
        fs::write(path(IPXE), script).unwrap();
        assert_eq!(stale_images(directory.path(), &["nix-store.squashfs"]), ["nix-store-2.squashfs"]);
        let names = ["nix-store.erofs", "nix-store.squashfs", "notes", "nix-store-x.erofs", "nix-store-9.erofs"];
        let manifest = Manifest {
            firn: "1".into(),
            files: names.map(|name| entry(name, "").checked().unwrap()).into(),
            ..Manifest::default()
        };
        fs::write(path(FILE), manifest.to_json().unwrap()).unwrap();
        assert_eq!(stale_images(directory.path(), &["nix-store.erofs"]), ["nix-store.squashfs"]);
        let error = ensure_no_file_of_a_build(directory.path(), "notes").unwrap_err().to_string();
        assert!(error.contains("is a file of the build in"), "{error}");
        ensure_no_file_of_a_build(directory.path(), "nixos.efi").unwrap();
        let error = ensure_manifest_of(directory.path(), &["ipxe"]).unwrap_err().to_string();
        assert!(error.contains("has the files of firn build"), "{error}");
        let manifest = Manifest { firn: "1".into(), tree: "ipxe".into(), ..Manifest::default() };
        fs::write(path(FILE), manifest.to_json().unwrap()).unwrap();
        ensure_manifest_of(directory.path(), &["ipxe"]).unwrap();
        let error = ensure_manifest_of(directory.path(), &["kexec"]).unwrap_err().to_string();
        assert!(error.contains("has the files of firn ipxe") && error.contains("--out"), "{error}");
    }

    #[test]
    fn c_8_a_script_for_other_files_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("bzImage"), "old").unwrap();
        let same = describe(&path("bzImage"), Progress::Quiet).unwrap();
        fs::write(path("kexec-boot"), "#!/bin/sh\n").unwrap();
        ensure_no_mixture(directory.path(), &[entry("bzImage", "")]).unwrap();
        fs::write(path("kexec-boot"), "#!/bin/sh\n# Boots a system. Made by firn.\n").unwrap();
        ensure_no_mixture(directory.path(), &[same]).unwrap();
        let error = ensure_no_mixture(directory.path(), &[entry("bzImage", "")]).unwrap_err().to_string();
        assert!(error.contains("kexec-boot was made for another bzImage") && error.contains("delete"), "{error}");
        ensure_no_mixture(directory.path(), &[entry("bzImage", ""), entry("kexec-boot", "")]).unwrap();
    }
}
