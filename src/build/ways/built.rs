//! What `firn build` made, for whoever makes something else of it.

use crate::build::output::directory::{self, Directory};
use crate::contract::manifest::{FileEntry, Manifest};
use crate::formats::digest::copy;
use crate::formats::magic::NEWC;
use crate::host::progress::Progress;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A directory that `firn build` made.
#[derive(Debug)]
pub struct Built {
    directory: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// A file of such a directory, or the beginning of one.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    /// How much of it, bytes.
    pub bytes: u64,
}

impl Built {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// One that `firn build` did not make.
    pub fn open(directory: &Path) -> Result<Self> {
        let manifest = Manifest::read(directory)?;
        ensure!(
            !manifest.images.is_empty() && manifest.before_images > 0 && !manifest.kernel_release.is_empty(),
            "{}/manifest.json does not say where the store images are: another version of firn wrote it; build the system again",
            directory.display()
        );
        Ok(Self { directory: directory.into(), manifest })
    }

    /// The kernel.
    ///
    /// # Errors
    ///
    /// One that is not there, or not as the build left it.
    pub fn kernel(&self) -> Result<Part> {
        self.whole("bzImage")
    }

    /// The ramdisk.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn ramdisk(&self) -> Result<Part> {
        self.whole("initrd")
    }

    /// The ramdisk without the store images, which are the last that it has: stage 1 then finds them where the boot loader puts
    /// them.
    ///
    /// # Errors
    ///
    /// As above, and a ramdisk in which they are not where the manifest says.
    pub fn ramdisk_without_images(&self) -> Result<Part> {
        let Part { path, .. } = self.ramdisk()?;
        let begin = self.manifest.before_images;
        let found = || -> io::Result<_> {
            let mut magic = [0; 6];
            File::open(&path)?.read_exact_at(&mut magic, begin)?;
            Ok(magic == *NEWC)
        };
        ensure!(
            found().with_context(|| format!("reading {}", path.display()))?,
            "{} does not have the store image where the manifest says: was something put into it? Build it again",
            path.display()
        );
        Ok(Part { path, bytes: begin })
    }

    /// Gives files of it the same names in another directory.
    ///
    /// # Errors
    ///
    /// One that is not there, those of writing, and a directory that is this one.
    pub fn output(&self, out: &Path, files: &[(&str, &str)], progress: Progress) -> Result<Directory> {
        let mut output = Directory::create(out)?;
        ensure!(
            !directory::same(out, &self.directory),
            "{} is what firn build made, and the manifest in it would be wrong then; give another directory with --out",
            out.display()
        );
        for (from, to) in files {
            let Part { path, .. } = self.whole(from)?;
            output.link(FileEntry { name: (*to).into(), ..self.entry(from)?.clone() }, &path, progress)?;
        }
        Ok(output)
    }

    /// A place for one file that is made of it: `out`, or in the directory `out` the name `default`.
    ///
    /// # Errors
    ///
    /// A directory that cannot be written to, and the name of a file that is of this build.
    pub fn file_output(&self, out: &Path, default: &str) -> Result<(Directory, String)> {
        let (output, name) = Directory::of_file(out, default)?;
        let files: Vec<_> = self.manifest.files.iter().map(|file| self.directory.join(&file.name)).collect();
        let manifest = self.directory.join("manifest.json");
        output.spare(&name, files.iter().chain([&manifest]).map(PathBuf::as_path))?;
        Ok((output, name))
    }

    fn entry(&self, name: &str) -> Result<&FileEntry> {
        self.manifest
            .files
            .iter()
            .find(|entry| entry.name == name)
            .with_context(|| format!("the manifest of {} has no file {name}; build it again", self.directory.display()))
    }

    fn whole(&self, name: &str) -> Result<Part> {
        let path = self.directory.join(name);
        let expected = self.entry(name)?.bytes;
        let bytes =
            fs::metadata(&path).with_context(|| format!("looking at {}; build it again", path.display()))?.len();
        ensure!(
            bytes == expected,
            "{} has {bytes} bytes and the manifest beside it says {expected}: build it again",
            path.display()
        );
        Ok(Part { path, bytes })
    }
}

impl Part {
    /// Its contents.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened.
    pub fn open(&self) -> Result<impl Read> {
        let file = File::open(&self.path).with_context(|| format!("reading {}", self.path.display()))?;
        Ok(file.take(self.bytes))
    }

    /// Writes all of it to `out`.
    ///
    /// # Errors
    ///
    /// Those of reading and writing, and a file that has become shorter.
    pub fn copy(&self, mut out: impl Write) -> Result<()> {
        let copied = copy(self.open()?, &mut out).with_context(|| format!("copying {}", self.path.display()))?;
        ensure!(copied == self.bytes, "{} ended after {copied} of {} bytes", self.path.display(), self.bytes);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::formats::cpio;

    /// A build of a few bytes: what the ramdisk has before the image is `ramdisk`, to a multiple of four.
    pub fn sample(directory: &Path, label: &str, cmdline: &str, ramdisk: &str) -> Built {
        let mut initrd = ramdisk.as_bytes().to_vec();
        initrd.extend(cpio::padding(initrd.len() as u64));
        let before = initrd.len();
        let mut archive = cpio::Archive::new(&mut initrd);
        archive.file("/nix-store.squashfs", 0o444, None, 8, &b"an image"[..]).unwrap();
        archive.finish().unwrap();
        let files: Vec<_> = [("nix-store.squashfs", &b"an image"[..]), ("initrd", &initrd), ("bzImage", b"kernel")]
            .map(|(name, contents)| {
                fs::write(directory.join(name), contents).unwrap();
                serde_json::json!({"name": name, "bytes": contents.len(), "sha256": ""})
            })
            .into();
        let manifest = serde_json::json!({
            "firn": "1", "label": label, "system": "x86_64-linux", "toplevel": "/nix/store/x", "init": "/nix/store/x/init",
            "hand_over": "classic", "cmdline": cmdline, "kernel_release": "6.9", "modules": [], "store_paths": 1,
            "store_bytes": 1, "images": [{"file": "nix-store.squashfs", "path": "/nix-store.squashfs"}],
            "before_images": before, "files": files
        });
        fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
        Built::open(directory).unwrap()
    }

    #[test]
    fn the_ramdisk_without_the_image_is_what_comes_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let built = sample(directory.path(), "", "", "firn-init");
        let mut small = Vec::new();
        built.ramdisk_without_images().unwrap().copy(&mut small).unwrap();
        assert_eq!(small, b"firn-init\0\0\0");

        let initrd = directory.path().join("initrd");
        let contents = fs::read(&initrd).unwrap();
        fs::write(&initrd, [&contents[4..], b"more"].concat()).unwrap();
        let error = built.ramdisk_without_images().unwrap_err().to_string();
        assert!(error.contains("does not have the store image") && error.contains("Build it again"), "{error}");
    }

    #[test]
    fn what_is_no_build() {
        let directory = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Built::open(directory.path()).unwrap_err());
        assert!(error.contains("manifest.json; give a directory made by `firn build`: No such file"), "{error}");

        let built = sample(directory.path(), "", "", "firn-init");
        fs::write(directory.path().join("bzImage"), "half").unwrap();
        let error = built.kernel().unwrap_err().to_string();
        assert!(error.contains("has 4 bytes and the manifest beside it says 6: build it again"), "{error}");
        let error = built.output(directory.path(), &[], Progress::Quiet).unwrap_err().to_string();
        assert!(error.contains("give another directory with --out"), "{error}");
    }
}
