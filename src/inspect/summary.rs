//! A summary of a build, a ramdisk, a store image, a kernel or a unified kernel image.

use crate::contract::manifest::Manifest;
use crate::contract::plan::{self, Plan};
use crate::formats::kernel_image;
use crate::formats::magic::{self, FileKind};
use crate::formats::modules::without_suffix;
use crate::formats::newc::{Member, MemberKind};
use crate::formats::printable::printable_line;
use crate::formats::store_image::{self, recognize};
use crate::formats::uki::KERNEL;
use crate::host::file;
use crate::host::generation::Generation;
use crate::inspect::ramdisk::{Ramdisk, Segment, Stop, Warning};
use crate::inspect::store::{StoreImage, stacked};
use crate::inspect::uki::Uki;
use crate::inspect::{manifest, names};
use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;
use std::fs;
use std::io::Read;
use std::path::Path;

/// The most that is read of a plan, bytes. A real one has a few kilobytes.
const LONGEST_PLAN: u64 = 16 << 20;

/// The summary of a file or a directory.
#[derive(Debug, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Summary {
    /// A directory made by `firn build`, `firn ipxe` or `firn kexec`.
    Build(Box<BuildSummary>),
    /// A ramdisk, made by firn or by another program.
    Ramdisk(Box<RamdiskSummary>),
    /// A store image.
    Image(StoreImage),
    /// A kernel image.
    Kernel(Kernel),
    /// A unified kernel image.
    Uki(Box<UkiSummary>),
}

/// A unified kernel image.
#[derive(Debug, Clone, Serialize)]
pub struct UkiSummary {
    /// Its path.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its sections and the texts in them.
    #[serde(flatten)]
    pub uki: Uki,
    /// Its kernel.
    pub kernel: Kernel,
    /// Its ramdisk, if it has one: the sections for microcode and the ramdisk, as the kernel gets them. Offsets are those in there.
    pub ramdisk: Option<RamdiskSummary>,
}

/// A kernel and a ramdisk.
#[derive(Debug, Clone, Serialize)]
pub struct BuildSummary {
    /// Its manifest, if `firn build` made it.
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
    /// Its release (`uname -r`), if it is one for x86.
    pub release: Option<String>,
}

/// The contents of a ramdisk.
#[derive(Debug, Clone, Serialize)]
pub struct RamdiskSummary {
    /// Its path.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Members that the kernel drops, and segments that firn cannot unpack.
    pub warnings: Vec<Warning>,
    /// The number of warnings after these.
    pub more_warnings: usize,
    /// The place where the kernel stops unpacking.
    pub stop: Option<Stop>,
    /// The plan, if firn made the ramdisk.
    pub plan: Option<Plan>,
    /// The error of a plan that cannot be read.
    pub bad_plan: Option<String>,
    /// The kernel that its modules are for.
    pub kernel_release: Option<String>,
    /// The kernel modules in it, sorted.
    pub modules: Vec<String>,
    /// The store images in it, or next to it in the build.
    pub images: Vec<StoreImage>,
}

impl Summary {
    /// Reads a file, or a directory made by `firn build`, `firn ipxe` or `firn kexec`.
    ///
    /// # Errors
    ///
    /// A path that cannot be read, or a file of another kind.
    pub fn of(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return build(path).map(|build| Self::Build(Box::new(build)));
        }
        let start = start(path, kernel_image::START)?;
        match magic::recognize(&start) {
            Some(FileKind::Kernel) => return kernel(path).map(Self::Kernel),
            Some(FileKind::EfiProgram) => return uki(path).map(Box::new).map(Self::Uki),
            _ => {}
        }
        match image(path)? {
            Some(image) => Ok(Self::Image(image)),
            None => RamdiskSummary::of(path).map(Box::new).map(Self::Ramdisk),
        }
    }

    /// The ramdisk in it.
    #[must_use]
    pub fn ramdisk(&self) -> Option<&RamdiskSummary> {
        match self {
            Self::Build(build) => Some(&build.ramdisk),
            Self::Ramdisk(ramdisk) => Some(ramdisk),
            Self::Uki(uki) => uki.ramdisk.as_ref(),
            Self::Image(_) | Self::Kernel(_) => None,
        }
    }

    /// The kind of the thing, as a noun.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Build(_) => "a build",
            Self::Ramdisk(_) => "a ramdisk",
            Self::Image(_) => "a store image",
            Self::Kernel(_) => "a kernel",
            Self::Uki(_) => "a unified kernel image",
        }
    }
}

impl RamdiskSummary {
    /// Reads a ramdisk.
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
            warnings: Vec::new(),
            more_warnings: 0,
            stop: None,
            plan: None,
            bad_plan: None,
            kernel_release: None,
            modules: Vec::new(),
            images: Vec::new(),
        };
        let read = ramdisk.walk(&mut |member, reader| contents.note(member, reader))?;
        contents.segments = read.segments;
        contents.warnings = read.warnings;
        contents.more_warnings = read.more_warnings;
        contents.stop = read.stop;
        contents.kernel_release =
            contents.plan.as_ref().map(|plan| plan.kernel_release.clone()).or_else(|| release_of(&contents.modules));
        for image in &mut contents.images {
            image.offset = image.offset.and_then(|offset| ramdisk.offset_in_file(offset));
        }
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
        let place = member.fate.place.as_deref().unwrap_or(&member.path);
        let path = place.strip_prefix("/").unwrap_or(place).to_string_lossy();
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

/// Reads the plan of a ramdisk. The inner result has the error of a plan that this firn does not understand.
///
/// # Errors
///
/// Those of the reader.
pub fn read_plan(reader: &mut dyn Read) -> Result<Result<Plan>> {
    let mut json = Vec::new();
    reader.take(LONGEST_PLAN).read_to_end(&mut json)?;
    // The error may quote the plan.
    let plan = Plan::from_json(&String::from_utf8_lossy(&json));
    let plan = plan.map_err(|error| anyhow!(printable_line(&format!("{error:#}"))));
    Ok(plan.and_then(|plan| names::check_plan(&plan).map(|()| plan)))
}

/// Reads a kernel image.
///
/// # Errors
///
/// A file that cannot be read.
pub fn kernel(path: &Path) -> Result<Kernel> {
    // Opening a pipe would wait for its other end.
    let metadata = fs::metadata(path).with_context(|| format!("reading the kernel {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is no regular file", path.display());
    let start = start(path, kernel_image::START).with_context(|| format!("reading the kernel {}", path.display()))?;
    Ok(Kernel { path: path.display().to_string(), bytes: metadata.len(), release: kernel_image::release(&start) })
}

fn uki(path: &Path) -> Result<UkiSummary> {
    let file = file::open(path, "a unified kernel image")?;
    let uki = Uki::read(&file).with_context(|| path.display().to_string())?;
    let path_of_kernel = format!("{}, section {}", path.display(), KERNEL);
    let kernel = Kernel { path: path_of_kernel, bytes: uki.kernel_bytes, release: uki.kernel_release.clone() };
    let ramdisk = if uki.ramdisk.is_empty() { None } else { Some(RamdiskSummary::of(path)?) };
    Ok(UkiSummary { path: path.display().to_string(), bytes: file.metadata()?.len(), uki, kernel, ramdisk })
}

fn build(directory: &Path) -> Result<BuildSummary> {
    let generation = Generation::of(directory)?;
    let manifest = manifest::read_if_any(directory)?;
    let mut ramdisk = RamdiskSummary::of(directory)?;
    if ramdisk.images.is_empty() {
        let mut files = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.sort();
        // Images of an earlier output may lie there, too.
        if let Some(plan) = &ramdisk.plan {
            let paths: Vec<_> = plan.images.iter().map(|image| &image.path).collect();
            files.retain(|file| paths.iter().any(|path| Path::new(path).file_name() == file.file_name()));
        }
        for file in files.iter().filter(|file| file.is_file()) {
            ramdisk.images.extend(image(file)?);
        }
        stacked(&mut ramdisk.images);
    }
    let kernel = kernel(&directory.join("bzImage"))?;
    generation.ensure_same()?;
    Ok(BuildSummary { manifest, kernel, ramdisk })
}

/// Reads a store image. None if the file is no store image.
fn image(path: &Path) -> Result<Option<StoreImage>> {
    let start = start(path, store_image::LENGTH as u64)?;
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

fn start(path: &Path, bytes: u64) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    file::open(path, "a file or directory that firn made")?.take(bytes).read_to_end(&mut start)?;
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
    fn releases_in_paths_of_modules() {
        let of = |path: &str| release_of(&[path.to_owned()]);
        assert_eq!(of("usr/lib/modules/6.1/a.ko").as_deref(), Some("6.1"));
        assert_eq!(of("a.ko"), None);
    }
}
