//! The output directory of `firn build`, as the input of the other subcommands.

use crate::build::output::checked::{Checked, KnownFile};
use crate::build::output::directory::{self, Directory};
use crate::build::output::earlier;
use crate::build::ramdisk::zero_copy;
use crate::build::ways::limits::{self, Loader};
use crate::contract::file_name::FileName;
use crate::contract::manifest::{FileEntry, ImageFile, Manifest};
use crate::contract::place::ZERO_COPY;
use crate::formats::digest::copy;
use crate::formats::kernel_line::KernelLine;
use crate::formats::newc;
use crate::host::file;
use crate::host::generation::Generation;
use crate::host::progress::Progress;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An output directory of `firn build`.
#[derive(Debug)]
pub struct BuildDirectory {
    directory: PathBuf,
    generation: Generation,
    /// The contents of its `manifest.json`.
    pub manifest: Manifest,
}

/// A file of a build directory, or the beginning of such a file. Reading it to its end compares the whole file with the manifest.
#[derive(Debug)]
pub struct BuildFile {
    file: KnownFile,
    /// Whether not everybody may read it.
    pub private: bool,
    /// The number of bytes, from the beginning of the file.
    pub bytes: u64,
}

impl BuildDirectory {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// A directory without a manifest that this version of firn can read, or one that was made from a build.
    pub fn open(directory: &Path) -> Result<Self> {
        let generation = Generation::of(directory)?;
        let manifest = Manifest::read(directory)?;
        ensure!(
            manifest.tree.is_empty(),
            "{} was made by `firn {}` from a build; give the directory of the build",
            directory.display(),
            manifest.tree
        );
        Ok(Self { directory: directory.into(), generation, manifest })
    }

    /// The kernel.
    ///
    /// # Errors
    ///
    /// A file that is missing, or whose size is not that of the manifest.
    pub fn kernel(&self) -> Result<BuildFile> {
        self.whole("bzImage")
    }

    /// The ramdisk.
    ///
    /// # Errors
    ///
    /// Those of [`kernel`](Self::kernel).
    pub fn ramdisk(&self) -> Result<BuildFile> {
        self.whole("initrd")
    }

    /// Whether it has the file for zero copy.
    #[must_use]
    pub fn has_zero_copy(&self) -> bool {
        self.manifest.files.iter().any(|file| *file.name == *ZERO_COPY)
    }

    /// The parts of the one ramdisk for boot loaders that load only one: the file for zero copy, if there is one, and the ramdisk; or
    /// the ramdisk [without the images](Self::ramdisk_without_images).
    ///
    /// # Errors
    ///
    /// Those of [`kernel`](Self::kernel) and [`ramdisk_without_images`](Self::ramdisk_without_images).
    pub fn one_ramdisk(&self, with_images: bool) -> Result<OneRamdisk> {
        let ramdisk = if with_images { self.ramdisk() } else { self.ramdisk_without_images() }?;
        let zero_copy = if self.has_zero_copy() { Some(self.whole(ZERO_COPY)?) } else { None };
        Ok(OneRamdisk { zero_copy, ramdisk })
    }

    /// The ramdisk without the store images, which lie at its end. The boot loader has to add the images then.
    ///
    /// # Errors
    ///
    /// Those of [`kernel`](Self::kernel), and a ramdisk without store images at the offset that the manifest says.
    pub fn ramdisk_without_images(&self) -> Result<BuildFile> {
        let BuildFile { file, private, .. } = self.ramdisk()?;
        let path = &file.path;
        let begin = self.manifest.before_images;
        let mut ramdisk = file::open(path, "a whole build")?;
        let found = newc::name_at(&mut ramdisk, begin).with_context(|| format!("reading {}", path.display()))?;
        ensure!(
            begin > 0
                && self.manifest.images.first().is_some_and(|image| found.as_deref() == Some(image.path.as_ref())),
            "{} has no store image at the offset that manifest.json says; it was changed after the build: build it again",
            path.display()
        );
        Ok(BuildFile { file, private, bytes: begin })
    }

    /// Its command line for a boot with all its files, with the words of a text such as the value of an option `--append`.
    ///
    /// # Errors
    ///
    /// Words that cannot be written into a command line, and a line that the kernel cannot boot with.
    pub fn cmdline(&self, append: &str, loader: Loader) -> Result<KernelLine> {
        let line = limits::extended(&self.manifest.cmdline, append)?;
        let line = if self.has_zero_copy() { zero_copy::cmdline(line)? } else { line };
        limits::ensure_bootable(&line, &self.whole("bzImage")?.file.path, loader)?;
        Ok(line)
    }

    /// The numbers of words and variables that `kexec-boot` can still append; see [`limits::left`].
    ///
    /// # Errors
    ///
    /// Those of [`cmdline`](Self::cmdline).
    pub fn left(&self, line: &KernelLine) -> Result<(usize, usize)> {
        limits::left(line, &self.whole("bzImage")?.file.path, Loader::Kexec)
    }

    /// Opens another output directory for the subcommand `tree` and copies files of this one into it; `files` has their names here and
    /// there.
    ///
    /// # Errors
    ///
    /// A missing file, those of writing, and an output directory that has this build, another one, or the files of another subcommand.
    pub fn output(&self, out: &Path, tree: &str, files: &[(&str, &str)], progress: Progress) -> Result<Directory> {
        ensure!(
            !directory::same(out, &self.directory),
            "{} is the build directory, and its manifest would be wrong afterwards; give another directory with --out",
            out.display()
        );
        earlier::ensure_manifest_of(out, &[tree])?;
        let mut output = Directory::create(out)?;
        output.made_from(self.generation.clone());
        for (from, to) in files {
            output.link(to, &self.whole(from)?.file, progress)?;
        }
        Ok(output)
    }

    /// Opens the directory for one output file, and returns the name of the file: `out`, or `default` in the directory `out`.
    ///
    /// # Errors
    ///
    /// A directory that cannot be written to, and an output file that is a file of this build.
    pub fn file_output(&self, out: &Path, default: &str) -> Result<(Directory, String)> {
        let (mut output, name) = Directory::of_file(out, default)?;
        output.made_from(self.generation.clone());
        let files: Vec<_> = self.manifest.files.iter().map(|file| self.directory.join(&file.name)).collect();
        let manifest = self.directory.join("manifest.json");
        output.ensure_no_input(&name, files.iter().chain([&manifest]).map(PathBuf::as_path))?;
        Ok((output, name))
    }

    /// The manifest, as text, of a directory or a tarball with these files, which the subcommand `tree` makes from this build: so
    /// `firn verify` can compare its kernel and its script, too, wherever it is copied to.
    ///
    /// # Errors
    ///
    /// A name that a manifest cannot have.
    pub fn manifest_of_tree(&self, tree: &str, files: &[FileEntry]) -> Result<String> {
        let is_beside = |image: &&ImageFile| files.iter().any(|file| file.name == image.file.as_str());
        let length = |name: &str| files.iter().find(|file| file.name == name).map_or(0, |file| file.bytes);
        let one = length("initrd.gz");
        let before = if one > 0 { one.saturating_sub(self.entry("initrd")?.bytes) } else { 0 };
        let manifest = Manifest {
            tree: tree.into(),
            before_images: self.manifest.before_images + before,
            images: self.manifest.images.iter().filter(is_beside).cloned().collect(),
            files: files.iter().map(FileEntry::checked).collect::<Result<_>>()?,
            ..self.manifest.clone()
        };
        manifest.to_json()
    }

    /// A file of the build as its manifest describes it, under another name.
    ///
    /// # Errors
    ///
    /// A file that the manifest does not list.
    pub fn described(&self, name: &str, as_name: &str) -> Result<FileEntry> {
        Ok(self.entry(name)?.named(as_name))
    }

    fn entry(&self, name: &str) -> Result<&FileEntry<FileName>> {
        self.manifest.files.iter().find(|entry| entry.name == name).with_context(|| {
            format!("{}/manifest.json does not list the file {name}; build it again", self.directory.display())
        })
    }

    fn whole(&self, name: &str) -> Result<BuildFile> {
        let path = self.directory.join(name);
        let entry = self.entry(name)?;
        let expected = entry.bytes;
        let metadata =
            fs::metadata(&path).with_context(|| format!("reading the size of {}; build it again", path.display()))?;
        ensure!(metadata.is_file(), "{} is no regular file: build it again", path.display());
        let (bytes, private) = (metadata.len(), metadata.permissions().mode() & 0o004 == 0);
        ensure!(
            bytes == expected,
            "{} has {bytes} bytes, and manifest.json says {expected}: build it again",
            path.display()
        );
        Ok(BuildFile { file: KnownFile::of_manifest(path, entry), private, bytes })
    }
}

/// The parts of a ramdisk of a build, as one.
#[derive(Debug)]
pub struct OneRamdisk {
    /// The file for zero copy.
    pub zero_copy: Option<BuildFile>,
    /// The ramdisk, or its beginning.
    pub ramdisk: BuildFile,
}

impl OneRamdisk {
    /// Its size, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.zero_copy.as_ref().map_or(0, |file| file.bytes) + self.ramdisk.bytes
    }

    /// A reader of its contents. It fails before its end if a file is not the one of the build.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened.
    pub fn open(&self) -> Result<Box<dyn Read>> {
        let ramdisk = self.ramdisk.open()?;
        Ok(match &self.zero_copy {
            Some(file) => Box::new(file.open()?.chain(ramdisk)),
            None => Box::new(ramdisk),
        })
    }
}

impl BuildFile {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// A reader of its contents. It fails before its end if the file is not the one of the build.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened.
    pub fn open(&self) -> Result<Checked> {
        self.file.open(self.bytes)
    }

    /// Copies its contents to `out`.
    ///
    /// # Errors
    ///
    /// Those of reading and writing, and a file that was changed since the build.
    pub fn copy(&self, mut out: impl Write) -> Result<()> {
        copy(self.open()?, &mut out)?;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::formats::cpio;
    use crate::formats::digest::sha256;
    use crate::formats::pe::tests::kernel;

    /// A build of a few bytes. The ramdisk begins with `ramdisk`, padded to a multiple of four, and ends with the store image.
    pub fn sample(directory: &Path, label: &str, cmdline: &str, ramdisk: &str) -> BuildDirectory {
        sample_with_kernel(directory, label, cmdline, ramdisk, &kernel(0x8664, 0x12_3000))
    }

    /// The same with another kernel.
    pub fn sample_with_kernel(
        directory: &Path,
        label: &str,
        cmdline: &str,
        ramdisk: &str,
        kernel: &[u8],
    ) -> BuildDirectory {
        let mut initrd = ramdisk.as_bytes().to_vec();
        initrd.extend(cpio::padding(initrd.len() as u64));
        let before = initrd.len();
        let mut archive = cpio::Archive::new(&mut initrd);
        archive.file("/nix-store.squashfs", 0o444, None, 8, &b"an image"[..]).unwrap();
        archive.finish().unwrap();
        let files: Vec<_> = [("nix-store.squashfs", &b"an image"[..]), ("initrd", &initrd), ("bzImage", kernel)]
            .map(|(name, contents)| {
                fs::write(directory.join(name), contents).unwrap();
                let (bytes, sha256) = sha256(contents).unwrap();
                serde_json::json!({"name": name, "bytes": bytes, "sha256": sha256})
            })
            .into();
        let manifest = serde_json::json!({
            "firn": "1", "label": label, "system": "x86_64-linux", "toplevel": "/nix/store/x", "init": "/nix/store/x/init",
            "hand_over": "classic", "cmdline": cmdline, "kernel_release": "6.9", "modules": [], "store_paths": 1,
            "store_bytes": 1, "images": [{"file": "nix-store.squashfs", "path": "/nix-store.squashfs"}],
            "before_images": before, "files": files
        });
        fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
        BuildDirectory::open(directory).unwrap()
    }

    #[test]
    fn c_3_the_ramdisk_without_the_image_ends_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let build = sample(directory.path(), "", "", "firn-init");
        let mut small = Vec::new();
        build.ramdisk_without_images().unwrap().copy(&mut small).unwrap();
        assert_eq!(small, b"firn-init\0\0\0");

        let initrd = directory.path().join("initrd");
        let contents = fs::read(&initrd).unwrap();
        fs::write(&initrd, [&contents[4..], b"more"].concat()).unwrap();
        let refused = |build: &BuildDirectory| {
            let error = build.ramdisk_without_images().unwrap_err().to_string();
            assert!(error.contains("has no store image at the offset") && error.contains("build it again"), "{error}");
        };
        refused(&build);
        fs::write(&initrd, contents).unwrap();
        for before in [0, 4, 1 << 20, u64::MAX] {
            let mut build = BuildDirectory::open(directory.path()).unwrap();
            build.manifest.before_images = before;
            refused(&build);
        }
    }

    #[test]
    fn directories_that_are_no_build() {
        let directory = tempfile::tempdir().unwrap();
        let error = format!("{:#}", BuildDirectory::open(directory.path()).unwrap_err());
        assert!(error.contains("manifest.json; give a directory made by `firn build`: No such file"), "{error}");

        let build = sample(directory.path(), "", "", "");
        fs::write(directory.path().join("bzImage"), "half").unwrap();
        let error = build.kernel().unwrap_err().to_string();
        assert!(error.contains("has 4 bytes, and manifest.json says 768: build it again"), "{error}");
        let error = build.output(directory.path(), "ipxe", &[], Progress::Quiet).unwrap_err().to_string();
        assert!(error.contains("give another directory with --out"), "{error}");
    }
}
