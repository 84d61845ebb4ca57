//! The ramdisk: a small compressed segment for firn-init, and the store images in an uncompressed one.
//!
//! The images are compressed inside. Compressing them once more gains half a percent of their size and costs the booting machine
//! more time than all of stage 1 (docs/boot.md).

use crate::build::output::directory::Output;
use crate::build::ramdisk::compressor::Compressor;
use crate::build::ramdisk::modules::Packed;
use crate::build::store::packing::Profile;
use crate::contract::plan::{PATH, Plan};
use crate::formats::compression::SegmentCompression;
use crate::formats::cpio::{self, Node, Tree};
use crate::formats::newc::PAGE;
use crate::host::progress::Progress;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// What is executed in the ramdisk.
pub struct Programs {
    /// PID 1.
    pub firn_init: Vec<u8>,
    /// A busybox for a boot that failed.
    pub rescue_shell: Option<Vec<u8>>,
}

/// The segments beside the store image.
#[derive(Debug, Default)]
pub struct Segments {
    /// How firn's own is compressed; if that is not given, what counts decides.
    pub compressor: Option<Compressor>,
    /// At which level; if none is given, what counts decides.
    pub level: Option<u32>,
    /// What counts.
    pub profile: Profile,
    /// Ready-made ones of somebody else's, archives that are compressed or not, before firn's own: a processor's microcode,
    /// say, which the kernel looks for at the front.
    pub before: Vec<PathBuf>,
    /// After it, so that their files take the place of firn's; the store images stay the last.
    pub after: Vec<PathBuf>,
}

impl Segments {
    /// How firn's own segment is compressed: not at all if it is time that counts, the booting machine's too (docs/performance.md).
    fn compressor(&self) -> Compressor {
        let time = self.profile == Profile::Dev && self.level.is_none();
        self.compressor.unwrap_or(if time { Compressor::None } else { Compressor::Zstd })
    }

    /// The level for that.
    ///
    /// # Errors
    ///
    /// One that the compressor does not have.
    pub fn level(&self) -> Result<u32> {
        self.compressor().level(self.level, self.profile)
    }
}

/// Writes the ramdisk, and returns how much of it comes before the store images, bytes. They are the last of it, and may be
/// left to the boot loader.
///
/// # Errors
///
/// Those of reading the images and of writing.
pub fn write(
    out: &mut Output,
    programs: &Programs,
    files: Vec<Packed>,
    plan: &Plan,
    segments: &Segments,
    images: &[PathBuf],
    progress: Progress,
) -> Result<u64> {
    let tree = first_segment(programs, files, plan)?;
    for segment in &segments.before {
        copy(out, segment)?;
    }
    let mut archive = Vec::new();
    tree.write(&mut archive)?;
    let (compressor, level) = (segments.compressor(), segments.level()?);
    let step = progress.step("Packing stage 1", archive.len() as u64);
    compressor.compress(level, step.reading(archive.as_slice()), &mut *out)?;
    step.done();
    if compressor == Compressor::Lz4 {
        // A block of no size ends it, from Linux 5.14 on; otherwise the kernel takes the next segment for one more block.
        out.write_all(&[0; 4])?;
    }
    pad(out, cpio::ALIGNMENT)?;
    for segment in &segments.after {
        copy(out, segment)?;
    }
    if plan.is_retained() {
        pad(out, PAGE)?;
    }
    let before = out.bytes();
    if !images.is_empty() {
        let step = progress.step("Packing the ramdisk", plan.image_bytes());
        let mut archive = cpio::Archive::new(&mut *out);
        for (image, file) in plan.images.iter().zip(images) {
            let file = File::open(file).with_context(|| format!("opening {}", file.display()))?;
            archive.file(
                &image.place.path(),
                0o444,
                plan.is_retained().then_some(PAGE),
                image.bytes,
                step.reading(file),
            )?;
        }
        archive.finish()?;
        step.done();
    }
    Ok(before)
}

/// Copies a segment.
fn copy(out: &mut Output, path: &Path) -> Result<()> {
    let mut copy = || -> Result<()> {
        let mut file = BufReader::new(File::open(path)?);
        ensure!(
            SegmentCompression::of(file.fill_buf()?).is_some(),
            "it is no part of a ramdisk: neither a cpio archive (newc) nor one that is compressed in a way that the kernel knows"
        );
        io::copy(&mut file, out)?;
        pad(out, cpio::ALIGNMENT)
    };
    copy().with_context(|| format!("adding {} to the ramdisk", path.display()))
}

/// The kernel looks for an uncompressed segment on multiples of four only, and steps over zeros before it.
fn pad(out: &mut Output, alignment: u64) -> Result<()> {
    let zeros = out.bytes().next_multiple_of(alignment) - out.bytes();
    io::copy(&mut io::repeat(0).take(zeros), out)?;
    Ok(())
}

/// Everything but the store image.
fn first_segment(programs: &Programs, files: Vec<Packed>, plan: &Plan) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.add("/init", Node::File { mode: 0o755, contents: programs.firn_init.clone() });
    if let Some(busybox) = &programs.rescue_shell {
        tree.add("/bin/busybox", Node::File { mode: 0o755, contents: busybox.clone() });
        tree.add("/bin/sh", Node::Symlink("busybox".into()));
    }
    tree.add(PATH, Node::File { mode: 0o444, contents: plan.to_json()?.into_bytes() });
    // Before anything can be mounted the kernel opens the console for PID 1, and Rust's runtime opens /dev/null in place of a
    // descriptor that is missing. Most kernels bring a console of their own, but need not.
    tree.add("/dev/console", Node::CharacterDevice { mode: 0o600, major: 5, minor: 1 });
    tree.add("/dev/null", Node::CharacterDevice { mode: 0o666, major: 1, minor: 3 });
    for file in files {
        tree.add(&file.path, Node::File { mode: 0o444, contents: file.contents });
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::build::output::directory::Directory;
    use crate::contract::place::Place;
    use crate::contract::plan::{IMAGE, Image, VERSION};
    use std::fs;
    use std::process::{Command, Stdio};

    #[test]
    fn time_is_not_spent_on_compression_unless_somebody_asks_for_it() {
        let segments = |profile, compressor, level| {
            let segments = Segments { compressor, level, profile, ..Segments::default() };
            (segments.compressor(), segments.level().unwrap())
        };
        assert_eq!(segments(Profile::Dev, None, None), (Compressor::None, 0));
        assert_eq!(segments(Profile::Dev, Some(Compressor::Zstd), None), (Compressor::Zstd, 3));
        assert_eq!(segments(Profile::Dev, None, Some(5)), (Compressor::Zstd, 5));
        assert_eq!(segments(Profile::Release, None, None), (Compressor::Zstd, 19));
    }

    /// What foreign tools find in a ramdisk: the names in its compressed segment, and those in the one after it.
    #[test]
    fn a_foreign_reader_finds_two_segments() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        fs::write(&image, "an image").unwrap();
        let module = Packed { path: "/lib/modules/6.9/loop.ko".into(), contents: b"loop".to_vec() };
        let plan = Plan {
            version: VERSION,
            firn: String::new(),
            kernel_release: "6.9".into(),
            init: "/init".into(),
            start: None,
            modules: vec![module.path.clone()],
            images: vec![Image { place: Place::Unpacked(IMAGE.into()), bytes: 8, sha256: String::new() }],
            database: None,
            verify: false,
            host_id: None,
        };
        let programs = Programs { firn_init: b"firn-init".to_vec(), rescue_shell: Some(b"busybox".to_vec()) };
        let mut output = Directory::create(directory.path()).unwrap();
        output
            .write("initrd", |out| {
                write(out, &programs, vec![module], &plan, &Segments::default(), &[image], Progress::Quiet)
            })
            .unwrap();

        let ramdisk = fs::read(output.staged("initrd")).unwrap();
        assert_eq!(ramdisk.len() % 4, 0, "something may be appended as it is");
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
            "bin\nbin/busybox\nbin/sh\ndev\ndev/console\ndev/null\nfirn\nfirn/plan.json\ninit\nlib\nlib/modules\nlib/modules/6.9\n\
             lib/modules/6.9/loop.ko\n"
        );
        assert_eq!(list("cpio --list --quiet", &ramdisk[second..]), "nix-store.squashfs\n");
        assert_eq!(list("cpio --extract --to-stdout --quiet", &ramdisk[second..]), "an image");
    }
}
