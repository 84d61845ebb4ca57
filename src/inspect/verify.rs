//! Whether a build is what its manifest and its plan say: it may have been copied, or lain on a disk for years.

use super::manifest::{self, Described, Manifest};
use super::ramdisk::Ramdisk;
use super::summary::{kernel, read_plan};
use crate::digest::sha256;
use crate::image::progress::Progress;
use crate::plan::{self, Image, Plan};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::File;
use std::path::Path;

/// Something that was compared.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub what: String,
    /// What is wrong with it.
    pub fault: Option<String>,
}

/// Compares every file of a build with its manifest, and the store image in the ramdisk with the plan. Every file is read
/// once, the ramdisk twice, and none is held in memory.
///
/// # Errors
///
/// A directory without a manifest. Everything else is a finding.
pub fn verify(directory: &Path, progress: Progress) -> Result<Vec<Finding>> {
    let manifest = manifest::read(directory)?;
    let mut findings: Vec<_> =
        manifest.files.iter().map(|file| finding(file.name.clone(), matches(directory, file, progress))).collect();
    findings
        .push(finding("the store image that the ramdisk's plan names".into(), images(directory, &manifest, progress)));
    findings.push(finding("the kernel release".into(), release(directory, &manifest)));
    Ok(findings)
}

/// What was compared, and what came of it: a sentence if there is a fault.
fn finding(what: String, result: Result<Option<String>>) -> Finding {
    Finding { what, fault: result.unwrap_or_else(|error| Some(format!("{error:#}"))) }
}

fn matches(directory: &Path, described: &Described, progress: Progress) -> Result<Option<String>> {
    let file = File::open(directory.join(&described.name)).context("opening it")?;
    let step = progress.step("Comparing a file", file.metadata()?.len());
    let found = sha256(step.reading(file))?;
    step.done();
    Ok(differs(&found, described.bytes, &described.sha256, "manifest.json"))
}

fn images(directory: &Path, manifest: &Manifest, progress: Progress) -> Result<Option<String>> {
    let ramdisk = Ramdisk::open(directory)?;
    let plan = plan_of(&ramdisk)?;
    if plan.kernel_release != manifest.kernel_release {
        return Ok(Some(format!(
            "the ramdisk is for Linux {} and manifest.json says {}",
            plan.kernel_release, manifest.kernel_release
        )));
    }
    let step = progress.step("Comparing the store image", plan.image_bytes());
    let mut found = vec![None; plan.images.len()];
    ramdisk.walk(&mut |entry, contents| {
        let image = plan.images.iter().zip(&mut found).find(|(image, _)| entry.is_at(Path::new(&image.path)));
        if let Some((_, found)) = image {
            *found = Some(sha256(step.reading(contents))?);
        }
        Ok(())
    })?;
    step.done();
    Ok(plan.images.iter().zip(&found).find_map(|(image, found)| match found {
        Some(found) => differs(found, image.bytes, &image.sha256, "the plan"),
        None if is_beside(image, manifest) => None,
        None => Some(format!("{} is not in the ramdisk, and no file beside it is the image", image.path)),
    }))
}

/// Whether another file of the build is the image, for a boot loader that adds it to the ramdisk.
fn is_beside(image: &Image, manifest: &Manifest) -> bool {
    manifest.files.iter().any(|file| file.sha256 == image.sha256 && file.bytes == image.bytes)
}

/// The plan of a ramdisk, the last one if there are several, as the kernel leaves it.
fn plan_of(ramdisk: &Ramdisk) -> Result<Plan> {
    let mut found = None;
    ramdisk.walk(&mut |entry, contents| {
        if entry.is_at(Path::new(plan::PATH)) {
            found = Some(read_plan(contents)?);
        }
        Ok(())
    })?;
    found.with_context(|| format!("the ramdisk has no {}; build it again", plan::PATH))?
}

fn release(directory: &Path, manifest: &Manifest) -> Result<Option<String>> {
    let release = kernel(&directory.join("bzImage"))?.release;
    Ok(release
        .filter(|release| *release != manifest.kernel_release)
        .map(|release| format!("bzImage is Linux {release} and manifest.json says {}", manifest.kernel_release)))
}

fn differs((bytes, sha256): &(u64, String), expected_bytes: u64, expected: &str, says: &str) -> Option<String> {
    if *bytes != expected_bytes {
        return Some(format!("it has {bytes} bytes and {says} says {expected_bytes}"));
    }
    (sha256 != expected).then(|| format!("its SHA-256 is {sha256} and {says} says {expected}"))
}
