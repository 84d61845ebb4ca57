//! What something is, in one value: a whole build, a ramdisk, a store image or a kernel.

use crate::contract::manifest::Manifest;
use crate::contract::plan::{self, Plan};
use crate::formats::kernel_image;
use crate::formats::magic::{self, FileKind};
use crate::formats::modules::without_suffix;
use crate::formats::newc::{Member, MemberKind};
use crate::formats::store_image::{self, recognize};
use crate::inspect::manifest;
use crate::inspect::ramdisk::{Ramdisk, Segment};
use crate::inspect::store::{StoreImage, stacked};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// A plan has a few kilobytes; this much of what is at its place is read, bytes.
const LONGEST_PLAN: u64 = 16 << 20;

/// As much of a kernel image as can have its release: the header's pointer has 16 bits.
const KERNEL_START: u64 = 0x200 + (1 << 16) + 4096;

/// Something that was looked at.
#[derive(Debug, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Summary {
    /// A directory that `firn build`, `firn ipxe` or `firn kexec` made.
    Build(Box<BuildSummary>),
    /// A ramdisk, of whatever make.
    Ramdisk(RamdiskSummary),
    /// A store image.
    Image(StoreImage),
    /// A kernel image.
    Kernel(Kernel),
}

/// A kernel and a ramdisk.
#[derive(Debug, Clone, Serialize)]
pub struct BuildSummary {
    /// What it says of itself, if `firn build` made it.
    pub manifest: Option<Manifest>,
    /// Its kernel.
    pub kernel: Kernel,
    /// Its ramdisk.
    pub ramdisk: RamdiskSummary,
}

/// A kernel image.
#[derive(Debug, Clone, Serialize)]
pub struct Kernel {
    /// Its path.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// `uname -r`, where it says so.
    pub release: Option<String>,
}

/// What is in a ramdisk.
#[derive(Debug, Clone, Serialize)]
pub struct RamdiskSummary {
    /// Its path.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its parts.
    pub segments: Vec<Segment>,
    /// The plan, in a ramdisk that firn made.
    pub plan: Option<Plan>,
    /// Why there is none, though there is a file.
    pub bad_plan: Option<String>,
    /// The kernel that its modules are for.
    pub kernel_release: Option<String>,
    /// The kernel modules in it, sorted.
    pub modules: Vec<String>,
    /// The store images in it, or beside it in the build.
    pub images: Vec<StoreImage>,
}

impl Summary {
    /// Looks at a file or at a directory that `firn build`, `firn ipxe` or `firn kexec` made.
    ///
    /// # Errors
    ///
    /// What cannot be read, or is none of the things that firn knows.
    pub fn of(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return build(path).map(|build| Self::Build(Box::new(build)));
        }
        let start = start(path, KERNEL_START).with_context(|| format!("reading {}", path.display()))?;
        match magic::recognize(&start) {
            Some(FileKind::Kernel) => return kernel(path).map(Self::Kernel),
            Some(FileKind::EfiProgram) => bail!(
                "{} is an EFI program; firn inspect reads builds, ramdisks, store images and kernels",
                path.display()
            ),
            _ => {}
        }
        match image(path)? {
            Some(image) => Ok(Self::Image(image)),
            None => RamdiskSummary::of(path).map(Self::Ramdisk),
        }
    }
}

impl RamdiskSummary {
    /// Looks at a ramdisk.
    ///
    /// # Errors
    ///
    /// As [`Ramdisk::walk`].
    pub fn of(path: &Path) -> Result<Self> {
        let ramdisk = Ramdisk::open(path)?;
        let mut contents = Self {
            path: ramdisk.path.display().to_string(),
            bytes: ramdisk.bytes,
            segments: Vec::new(),
            plan: None,
            bad_plan: None,
            kernel_release: None,
            modules: Vec::new(),
            images: Vec::new(),
        };
        contents.segments = ramdisk.walk(&mut |member, reader| contents.note(member, reader))?;
        contents.kernel_release =
            contents.plan.as_ref().map(|plan| plan.kernel_release.clone()).or_else(|| release_of(&contents.modules));
        contents.images = contents.images.into_iter().map(|image| image.with_paths(&ramdisk.path)).collect();
        stacked(&mut contents.images);
        contents.modules.sort();
        contents.modules.dedup();
        Ok(contents)
    }

    fn note(&mut self, member: &Member, reader: &mut dyn Read) -> Result<()> {
        if member.kind != MemberKind::File {
            return Ok(());
        }
        let path = member.path.to_string_lossy();
        if member.is_at(Path::new(plan::PATH)) {
            let plan = read_plan(reader)?;
            self.bad_plan = plan.as_ref().err().map(|error| format!("{error:#}"));
            self.plan = plan.ok();
        } else if without_suffix(&path).len() < path.len() {
            self.modules.push(path.into_owned());
        } else if member.bytes >= store_image::LENGTH as u64 {
            let mut start = Vec::new();
            reader.take(store_image::LENGTH as u64).read_to_end(&mut start)?;
            self.images.extend(recognize(&start).map(|superblock| StoreImage {
                path: path.into_owned(),
                offset: member.offset,
                bytes: member.bytes,
                superblock,
                store_paths: Vec::new(),
                unknown: None,
            }));
        }
        Ok(())
    }
}

/// Reads the plan that a ramdisk has. The outer error is one of reading.
///
/// # Errors
///
/// Those of the reader; within, a plan that this firn does not understand.
pub fn read_plan(reader: &mut dyn Read) -> Result<Result<Plan>> {
    let mut json = Vec::new();
    reader.take(LONGEST_PLAN).read_to_end(&mut json)?;
    Ok(Plan::from_json(&String::from_utf8_lossy(&json)))
}

/// The kernel image of a file.
///
/// # Errors
///
/// One that cannot be read.
pub fn kernel(path: &Path) -> Result<Kernel> {
    let start = start(path, KERNEL_START).with_context(|| format!("reading the kernel {}", path.display()))?;
    Ok(Kernel {
        path: path.display().to_string(),
        bytes: fs::metadata(path)?.len(),
        release: kernel_image::release(&start),
    })
}

fn build(directory: &Path) -> Result<BuildSummary> {
    let manifest = manifest::read_if_any(directory)?;
    let mut ramdisk = RamdiskSummary::of(directory)?;
    if ramdisk.images.is_empty() {
        let mut files = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            ramdisk.images.extend(image(file)?);
        }
        stacked(&mut ramdisk.images);
    }
    Ok(BuildSummary { kernel: kernel(&directory.join("bzImage"))?, manifest, ramdisk })
}

/// The store image that a file is, if it is one.
fn image(path: &Path) -> Result<Option<StoreImage>> {
    let start = start(path, store_image::LENGTH as u64).with_context(|| format!("reading {}", path.display()))?;
    let Some(superblock) = recognize(&start) else { return Ok(None) };
    let image = StoreImage {
        path: path.display().to_string(),
        offset: Some(0),
        bytes: fs::metadata(path)?.len(),
        superblock,
        store_paths: Vec::new(),
        unknown: None,
    };
    Ok(Some(image.with_paths(path)))
}

fn start(path: &Path, bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(bytes).read_to_end(&mut start)?;
    Ok(start)
}

/// The release in `lib/modules/<release>/`.
fn release_of(modules: &[String]) -> Option<String> {
    modules.iter().find_map(|path| {
        let (_, rest) = path.split_once("lib/modules/")?;
        Some(rest.split_once('/')?.0.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_modules_they_are() {
        let of = |path: &str| release_of(&[path.to_owned()]);
        assert_eq!(of("usr/lib/modules/6.1/a.ko").as_deref(), Some("6.1"));
        assert_eq!(of("a.ko"), None);
    }
}
