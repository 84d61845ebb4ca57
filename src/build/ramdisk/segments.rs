//! The ramdisk: a small compressed segment with firn-init and its files, and an uncompressed segment with the store images. Each image
//! begins on a page, so that a loop device can read it from the memory where the boot loader puts it, without copies.
//!
//! The images are compressed file systems. Compressing them again saves half a percent of their size, and costs the booting
//! machine more time than all of stage 1 (docs/boot.md).

use crate::build::output::checked::KnownFile;
use crate::build::output::directory::Output;
use crate::build::ramdisk::added::AddedSegments;
use crate::build::ramdisk::compressor::Compressor;
use crate::build::ramdisk::file::RamdiskFile;
use crate::build::store::packing::Profile;
use crate::contract::manifest::FileEntry;
use crate::contract::plan::{FILE_DIRECTORIES, FILES, PATH, Plan};
use crate::formats::cpio::{self, Node, Tree};
use crate::formats::newc::PAGE;
use crate::host::progress::Progress;
use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The programs of the ramdisk.
pub struct Executables {
    /// PID 1.
    pub firn_init: Vec<u8>,
    /// A busybox for the menu of a failed boot.
    pub rescue_shell: Option<Vec<u8>>,
}

/// From this size on, bytes, some firmware and boot loaders fail with a ramdisk (nixpkgs issues 203593, 73588).
const LARGE: u64 = 1 << 30;

/// A block of size zero ends a frame of lz4, from Linux 5.14 on; without it the kernel reads the next segment as one more block.
const LZ4_END: [u8; 4] = [0; 4];

/// The segments of the ramdisk, except the one with the store images.
#[derive(Debug, Default)]
pub struct SegmentOptions {
    /// The compressor of firn's segment; without it the profile decides.
    pub compressor: Option<Compressor>,
    /// The level of the compressor; without it the profile decides.
    pub level: Option<u32>,
    /// The goal of the compression.
    pub profile: Profile,
    /// Ready-made segments before firn's, archives that may be compressed: for example the microcode of a processor, which the
    /// kernel searches at the beginning of the ramdisk.
    pub before: Vec<PathBuf>,
    /// Ready-made segments after firn's, whose files replace those of firn; the store images still come last.
    pub after: Vec<PathBuf>,
}

impl SegmentOptions {
    /// The compressor of firn's segment: none for the profile dev, which saves time in the booting machine, too
    /// (docs/performance.md).
    fn compressor(&self) -> Compressor {
        let fast = self.profile == Profile::Dev && self.level.is_none();
        self.compressor.unwrap_or(if fast { Compressor::None } else { Compressor::Zstd })
    }

    /// Whether there are ready-made segments, which may have keys in them.
    #[must_use]
    pub fn has_ready_made(&self) -> bool {
        !self.before.is_empty() || !self.after.is_empty()
    }

    /// The level of the compressor.
    ///
    /// # Errors
    ///
    /// A level that the compressor does not have.
    pub fn level(&self) -> Result<u32> {
        self.compressor().level(self.level, self.profile)
    }
}

/// Writes the ramdisk, and returns its size up to the store images, bytes. The images come last; with no `images` the boot loader
/// has to add those of the plan.
///
/// # Errors
///
/// An image that is not the one that the plan describes, because another program has written to it since then; those of reading
/// the images and of writing; a ready-made segment that the kernel does not take.
pub fn write(
    out: &mut Output,
    executables: &Executables,
    files: Vec<RamdiskFile>,
    plan: &Plan,
    segments: &SegmentOptions,
    images: &[PathBuf],
    progress: Progress,
) -> Result<u64> {
    let tree = first_segment(executables, files, plan)?;
    let mut added = AddedSegments::default();
    for segment in &segments.before {
        copy(out, segment, &mut added, progress)?;
    }
    let mut archive = Vec::new();
    tree.write(&mut archive)?;
    added.add_own(&archive)?;
    let (compressor, level) = (segments.compressor(), segments.level()?);
    let step = progress.step("Packing stage 1", archive.len() as u64);
    compressor.compress(level, step.reading(archive.as_slice()), &mut *out)?;
    step.done();
    if compressor == Compressor::Lz4 {
        out.write_all(&LZ4_END)?;
    }
    pad(out, cpio::ALIGNMENT)?;
    for segment in &segments.after {
        copy(out, segment, &mut added, progress)?;
    }
    if segments.has_ready_made() {
        added.check_images(&plan.images)?;
    }
    pad(out, PAGE)?;
    let before = out.bytes();
    if !images.is_empty() {
        let step = progress.step("Packing the ramdisk", plan.image_bytes());
        let mut archive = cpio::Archive::new(&mut *out);
        for (image, file) in plan.images.iter().zip(images) {
            let known = KnownFile::of_this_run(file.clone(), image.bytes, &image.sha256);
            archive.file(&image.path, 0o444, Some(PAGE), image.bytes, step.reading(known.open(image.bytes)?))?;
        }
        archive.finish()?;
        step.done();
    }
    Ok(before)
}

/// Warns about the problems of a large ramdisk.
pub fn warn_if_large(ramdisk: Option<&FileEntry>, progress: Progress) {
    if let Some(FileEntry { bytes, .. }) = ramdisk.filter(|ramdisk| ramdisk.bytes > LARGE) {
        progress.say(&format!(
            "The ramdisk has {bytes} bytes. Some firmware and boot loaders fail with files of more than 1 GiB: if yours does, try \
             firn ipxe --split, or pack fewer store paths"
        ));
    }
}

/// Says that not everybody may read the ramdisk.
pub fn tell_if_private(private: bool, progress: Progress) {
    if private {
        progress.say(
            "The ramdisk has segments of --prepend or --append, which may hold keys: only its owner may read it (mode 0600), except in \
             the Nix store, which everybody may read",
        );
    }
}

/// Copies a ready-made segment.
fn copy(out: &mut Output, path: &Path, added: &mut AddedSegments, progress: Progress) -> Result<()> {
    let mut copy = || -> Result<()> {
        let segment = added.add(path, progress)?;
        let needs_end = segment.needs_end;
        segment.copy(out)?;
        if needs_end {
            out.write_all(&LZ4_END)?;
        }
        pad(out, cpio::ALIGNMENT)
    };
    copy().with_context(|| format!("adding {} to the ramdisk", path.display()))
}

/// Pads to a multiple of `alignment`: the kernel searches an uncompressed segment only at multiples of four, and skips zeros before
/// it.
fn pad(out: &mut Output, alignment: u64) -> Result<()> {
    let zeros = out.bytes().next_multiple_of(alignment) - out.bytes();
    io::copy(&mut io::repeat(0).take(zeros), out)?;
    Ok(())
}

/// The contents of firn's segment.
fn first_segment(executables: &Executables, files: Vec<RamdiskFile>, plan: &Plan) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.add("/init", Node::File { mode: 0o755, contents: executables.firn_init.clone() });
    if let Some(busybox) = &executables.rescue_shell {
        tree.add("/bin/busybox", Node::File { mode: 0o755, contents: busybox.clone() });
        tree.add("/bin/sh", Node::Symlink("busybox".into()));
    }
    tree.add(PATH, Node::File { mode: 0o444, contents: plan.to_json()?.into_bytes() });
    // Before anything is mounted, the kernel opens the console for PID 1, and the runtime of Rust opens /dev/null for a missing
    // descriptor. Most kernels have a built-in ramdisk with a console, but not all.
    tree.add("/dev/console", Node::CharacterDevice { mode: 0o600, major: 5, minor: 1 });
    tree.add("/dev/null", Node::CharacterDevice { mode: 0o666, major: 1, minor: 3 });
    for directory in FILE_DIRECTORIES {
        tree.add(&format!("{FILES}{directory}"), Node::Directory);
    }
    for file in files {
        tree.add(&file.path, Node::File { mode: 0o444, contents: file.contents });
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::output::directory::Directory;
    use crate::contract::plan::{IMAGE, Image, VERSION};
    use crate::formats::digest::sha256;
    use std::fs;
    use std::process::{Command, Stdio};

    #[test]
    fn the_profile_dev_compresses_only_on_request() {
        let segments = |profile, compressor, level| {
            let segments = SegmentOptions { compressor, level, profile, ..SegmentOptions::default() };
            (segments.compressor(), segments.level().unwrap())
        };
        assert_eq!(segments(Profile::Dev, None, None), (Compressor::None, 0));
        assert_eq!(segments(Profile::Dev, Some(Compressor::Zstd), None), (Compressor::Zstd, 3));
        assert_eq!(segments(Profile::Dev, None, Some(5)), (Compressor::Zstd, 5));
        assert_eq!(segments(Profile::Release, None, None), (Compressor::Zstd, 19));
    }

    /// The plan of an image with the text `an image`.
    fn plan(modules: Vec<String>) -> Plan {
        let (_, sha256) = sha256(&b"an image"[..]).unwrap();
        Plan {
            version: VERSION,
            firn: String::new(),
            kernel_release: "6.9".into(),
            init: "/init".into(),
            start: None,
            modules,
            module_options: Vec::new(),
            images: vec![Image { path: IMAGE.into(), bytes: 8, sha256 }],
            database: None,
            verify: false,
            host_id: None,
            roots: Vec::new(),
        }
    }

    /// Foreign tools find the names in the compressed segment, and those in the segment after it.
    #[test]
    fn a_foreign_reader_finds_two_segments() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        fs::write(&image, "an image").unwrap();
        let module = RamdiskFile { path: "/lib/modules/6.9/loop.ko".into(), contents: b"loop".to_vec() };
        let plan = plan(vec![module.path.clone()]);
        let executables = Executables { firn_init: b"firn-init".to_vec(), rescue_shell: Some(b"busybox".to_vec()) };
        let mut output = Directory::create(directory.path()).unwrap();
        output
            .write("initrd", |out| {
                write(out, &executables, vec![module], &plan, &SegmentOptions::default(), &[image], Progress::Quiet)
            })
            .unwrap();

        let ramdisk = fs::read(output.staged("initrd")).unwrap();
        assert_eq!(ramdisk.len() % 4, 0, "a segment may be appended without padding");
        // "070701": where a reader of uncompressed segments finds the next one
        let second = ramdisk.windows(6).rposition(|bytes| bytes == b"070701");
        let second = ramdisk[..second.unwrap()].windows(6).rposition(|bytes| bytes == b"070701").unwrap();
        assert_eq!(second % 4, 0);
        let list = |command: &str, input: &[u8]| {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        };
        let zeros = ramdisk[..second].iter().rev().take_while(|byte| **byte == 0).count();
        assert_eq!(
            list("zstd --decompress | cpio --list --quiet", &ramdisk[..second - zeros.min(3)]),
            "bin\nbin/busybox\nbin/sh\ndev\ndev/console\ndev/null\nfirn\nfirn/plan.json\nfirn/root\nfirn/root/etc\nfirn/root/etc/nix\n\
             firn/root/etc/ssh\nfirn/root/etc/systemd\nfirn/root/etc/systemd/network\nfirn/root/etc/systemd/system\nfirn/root/root\n\
             firn/root/root/.ssh\nfirn/root/root/network\nfirn/root/var\nfirn/root/var/lib\ninit\nlib\nlib/modules\nlib/modules/6.9\n\
             lib/modules/6.9/loop.ko\n"
        );
        assert_eq!(list("cpio --list --quiet", &ramdisk[second..]), "nix-store.squashfs\n");
        assert_eq!(list("cpio --extract --to-stdout --quiet", &ramdisk[second..]), "an image");
    }

    #[test]
    fn c_2_an_image_that_changes_after_its_description_is_an_error_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let plan = plan(Vec::new());
        let executables = Executables { firn_init: b"firn-init".to_vec(), rescue_shell: None };
        let images = [image.clone()];
        for (contents, expected) in [
            ("an imagE", "its SHA-256 is"),
            ("an imag", "it has 7 bytes instead of 8"),
            ("an image, longer", "it has more than 8 bytes"),
        ] {
            fs::write(&image, contents).unwrap();
            let mut output = Directory::create(directory.path()).unwrap();
            let written = output.write("initrd", |out| {
                write(out, &executables, vec![], &plan, &SegmentOptions::default(), &images, Progress::Quiet)
            });
            let error = format!("{:#}", written.unwrap_err());
            let words = format!("{} was changed since firn took its checksum ({expected}", image.display());
            assert!(error.contains(&words), "no {words:?} in {error}");
        }
    }
}
