//! Whether a build is what its manifest and its plan say: it may have been copied, or lain on a disk for years.

use crate::contract::manifest::{FileEntry, Manifest};
use crate::contract::plan::{self, Image, Plan};
use crate::formats::digest::{self, sha256};
use crate::host::progress::{Progress, Step};
use crate::inspect::manifest;
use crate::inspect::ramdisk::{self, Ramdisk};
use crate::inspect::summary::{kernel, read_plan};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Something that was compared.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// What is wrong with it.
    pub fault: Option<String>,
}

/// Compares every file of a build with its manifest, and the store image in the ramdisk, or beside it, with the plan. Every file
/// is read once, and none is held in memory. What `firn ipxe` and `firn kexec` made has no manifest, and all that it says of itself
/// is the plan.
///
/// # Errors
///
/// A directory that firn did not make. Everything else is a finding.
pub fn verify(directory: &Path, progress: Progress) -> Result<Vec<Finding>> {
    let Some(manifest) = manifest::read_if_any(directory)? else { return tree(directory, progress) };
    let mut findings = Vec::new();
    let mut images = Err(anyhow!("manifest.json has no ramdisk; build it again"));
    for file in &manifest.files {
        let fault = matches(directory, file, progress, |contents| {
            if file.name == "initrd" {
                images = self::images(contents, &manifest);
            }
        });
        findings.push(finding(file.name.clone(), fault));
    }
    findings.push(finding("the store image that the ramdisk's plan names".into(), images));
    findings.push(finding("the kernel release".into(), release(directory, &manifest, "manifest.json")));
    Ok(findings)
}

/// What was compared, and what came of it: a sentence if there is a fault.
fn finding(what: String, result: Result<Option<String>>) -> Finding {
    Finding { what, fault: result.unwrap_or_else(|error| Some(format!("{error:#}"))) }
}

/// Reads a file to its end, after `look` has seen what it wants to see of it.
fn matches(
    directory: &Path,
    described: &FileEntry,
    progress: Progress,
    look: impl FnOnce(&mut InOrder<File>),
) -> Result<Option<String>> {
    let file = File::open(directory.join(&described.name)).context("opening it")?;
    let length = file.metadata()?.len();
    let step = progress.step("Comparing a file", length);
    let mut file = InOrder { file, length, position: 0, digest: digest::Writer::new(io::sink()), step: &step };
    look(&mut file);
    file.read_up_to(length)?;
    let (_, bytes, sha256) = file.digest.finish();
    step.done();
    Ok(differs(&(bytes, sha256), described.bytes, &described.sha256, "manifest.json"))
}

/// Compares what there is of a build without its manifest.
fn tree(directory: &Path, progress: Progress) -> Result<Vec<Finding>> {
    let Ramdisk { path, bytes: length, .. } = Ramdisk::open(directory)?;
    let step = progress.step("Comparing the store image", length);
    let mut file = InOrder {
        file: File::open(path).context("opening the ramdisk")?,
        length,
        position: 0,
        digest: digest::Writer::new(io::sink()),
        step: &step,
    };
    let (plan, found) = plan_and_images(&mut file)?;
    let beside = |image: &Image| -> Result<bool> {
        for entry in fs::read_dir(directory)? {
            let (path, metadata) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            let fits = metadata.is_file() && metadata.len() == image.bytes;
            if fits && sha256(step.reading(File::open(path)?))?.1 == image.sha256 {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let images = compared(&plan, &found, &beside);
    step.done();
    let manifest = Manifest { kernel_release: plan.kernel_release, ..Manifest::default() };
    Ok(vec![
        finding("the store image that the ramdisk's plan names".into(), images),
        finding("the kernel release".into(), release(directory, &manifest, "the plan")),
    ])
}

/// Compares the store images in the ramdisk with the plan.
fn images(ramdisk: &mut InOrder<File>, manifest: &Manifest) -> Result<Option<String>> {
    let (plan, found) = plan_and_images(ramdisk)?;
    if plan.kernel_release != manifest.kernel_release {
        return Ok(Some(format!(
            "the ramdisk is for Linux {} and manifest.json says {}",
            plan.kernel_release, manifest.kernel_release
        )));
    }
    compared(&plan, &found, &|image| {
        Ok(manifest.files.iter().any(|file| file.sha256 == image.sha256 && file.bytes == image.bytes))
    })
}

/// What store images were found in a ramdisk: the length and the checksum of each.
type Found = HashMap<String, (u64, String)>;

/// Looks into the ramdisk for the plan, and for the store images, which come after it. Of several plans the last one counts, as
/// the kernel leaves it.
fn plan_and_images(ramdisk: &mut InOrder<File>) -> Result<(Plan, Found)> {
    let (mut plan, mut found) = (None, Found::new());
    ramdisk::read(ramdisk, &mut |entry, contents| {
        if entry.is_at(Path::new(plan::PATH)) {
            (plan, found) = (Some(read_plan(contents)?), Found::new());
        } else if let Some(Ok(Plan { images, .. })) = &plan
            && let Some(image) = images.iter().find(|image| entry.is_at(Path::new(&image.path)))
        {
            found.insert(image.path.clone(), sha256(contents)?);
        }
        Ok(())
    })
    .context("the ramdisk")?;
    let plan = plan.with_context(|| format!("the ramdisk has no {}; build it again", plan::PATH))??;
    Ok((plan, found))
}

/// Compares each image of a plan with what was found, or else with what is `beside` the ramdisk for a boot loader to add.
fn compared(plan: &Plan, found: &Found, beside: &dyn Fn(&Image) -> Result<bool>) -> Result<Option<String>> {
    for image in &plan.images {
        let fault = match found.get(&image.path) {
            Some(found) => differs(found, image.bytes, &image.sha256, "the plan"),
            None if beside(image)? => None,
            None => {
                Some(format!("{} is not in the ramdisk after the plan, and no file beside it is the image", image.path))
            }
        };
        if fault.is_some() {
            return Ok(fault);
        }
    }
    Ok(None)
}

fn release(directory: &Path, manifest: &Manifest, says: &str) -> Result<Option<String>> {
    let release = kernel(&directory.join("bzImage"))?.release;
    Ok(release
        .filter(|release| *release != manifest.kernel_release)
        .map(|release| format!("bzImage is Linux {release} and {says} says {}", manifest.kernel_release)))
}

fn differs((bytes, sha256): &(u64, String), expected_bytes: u64, expected: &str, says: &str) -> Option<String> {
    if *bytes != expected_bytes {
        return Some(format!("it has {bytes} bytes and {says} says {expected_bytes}"));
    }
    (sha256 != expected).then(|| format!("its SHA-256 is {sha256} and {says} says {expected}"))
}

/// A file of which everything is read in order, once, for its checksum: what somebody steps over is read all the same.
struct InOrder<'a, R> {
    file: R,
    length: u64,
    /// Where whoever reads is.
    position: u64,
    /// Of all that was read so far.
    digest: digest::Writer<io::Sink>,
    step: &'a Step,
}

impl<R: Read + Seek> InOrder<'_, R> {
    fn read_up_to(&mut self, end: u64) -> io::Result<()> {
        let begin = self.digest.bytes();
        if begin < end {
            self.file.seek(SeekFrom::Start(begin))?;
            io::copy(&mut self.step.reading((&mut self.file).take(end - begin)), &mut self.digest)?;
        }
        Ok(())
    }
}

impl<R: Read + Seek> Read for InOrder<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_up_to(self.position)?;
        self.file.seek(SeekFrom::Start(self.position))?;
        let bytes = self.file.read(buffer)?;
        self.position += bytes as u64;
        let new = usize::try_from(self.position.saturating_sub(self.digest.bytes())).map_err(io::Error::other)?;
        self.digest.write_all(&buffer[bytes - new..bytes])?;
        self.step.advance(new as u64);
        Ok(bytes)
    }
}

impl<R> Seek for InOrder<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.length.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn all_of_a_file_is_read_once_whatever_is_stepped_over() {
        let contents: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let length = contents.len() as u64;
        let step = Progress::Quiet.step("", length);
        let file = Cursor::new(&contents);
        let mut file = InOrder { file, length, position: 0, digest: digest::Writer::new(io::sink()), step: &step };
        assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), length);
        for (to, expected) in [
            (SeekFrom::Start(0), 0),
            (SeekFrom::Current(400), 101),
            (SeekFrom::Current(-8), 100),
            (SeekFrom::Start(200_000), 50_000),
            (SeekFrom::Start(4), 1_u32),
        ] {
            file.seek(to).unwrap();
            let mut number = [0; 4];
            file.read_exact(&mut number).unwrap();
            assert_eq!(u32::from_le_bytes(number), expected);
        }
        file.read_up_to(length).unwrap();
        let (_, bytes, digest) = file.digest.finish();
        assert_eq!((bytes, digest), sha256(contents.as_slice()).unwrap());
    }
}
