//! Compares a build with its manifest and its plan: a copy may have failed, or a disk may have lost bytes.

use crate::contract::file_name::FileName;
use crate::contract::manifest::{BOOTED, FileEntry, Manifest, is_image_name};
use crate::contract::plan::{self, Image, Plan};
use crate::formats::digest::{self, sha256};
use crate::formats::newc::name_at;
use crate::host::file;
use crate::host::generation::Generation;
use crate::host::progress::{Progress, Step};
use crate::host::publication;
use crate::inspect::manifest;
use crate::inspect::ramdisk::{self, Ramdisk};
use crate::inspect::summary::{kernel, read_plan};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// A comparison and its result.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the thing that was compared.
    pub what: String,
    /// The difference, if there is one.
    pub fault: Option<String>,
    /// The reason why something was not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Compares every file of a directory with its manifest, and the store image, in the ramdisk or next to it, with the plan. Every file
/// is read once, and no file is held in memory. A directory that `firn ipxe` or `firn kexec` of firn 0.2.0 or older made has no manifest:
/// there only the plan tells how things should be, and a note says what is not verified.
///
/// # Errors
///
/// A path that is no directory made by firn. Everything else is a finding.
pub fn verify(directory: &Path, progress: Progress) -> Result<Vec<Finding>> {
    ensure!(
        !directory.is_file(),
        "{} is a file; verify needs a directory made by `firn build`, `firn ipxe` or `firn kexec` (compare a single file, such as a UEFI \
         image, with the SHA-256 that --json prints when it is made, by sha256sum)",
        directory.display()
    );
    publication::settle(directory)?;
    let generation = Generation::of(directory)?;
    let findings = findings(directory, progress)?;
    generation.ensure_same()?;
    Ok(findings)
}

fn findings(directory: &Path, progress: Progress) -> Result<Vec<Finding>> {
    let Some(manifest) = manifest::read_if_any(directory)? else { return without_manifest(directory, progress) };
    let mut findings = Vec::new();
    let mut images = Err(anyhow!("they were not compared, because the ramdisk was not read"));
    for file in &manifest.files {
        let fault = matches(directory, file, progress, |contents| {
            if file.name == "initrd" || file.name == "initrd.gz" {
                images = self::images(contents, &manifest);
            }
        });
        findings.push(finding(file.name.to_string(), fault));
    }
    for name in booted(directory)? {
        if manifest.files.iter().all(|file| *file.name != name) {
            let fault = "manifest.json does not list it; make the directory again, as one of its own";
            findings.push(finding(name, Ok(Some(fault.into()))));
        }
    }
    findings.push(finding("the store image that the ramdisk's plan names".into(), images));
    findings.push(finding("the kernel release".into(), release(directory, &manifest, "manifest.json")));
    Ok(findings)
}

/// The files in a directory that a machine boots, or that boot it, and those with the names of store images; sorted.
fn booted(directory: &Path) -> Result<Vec<String>> {
    let context = || format!("reading the directory {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        names.extend(name.to_str().filter(|name| BOOTED.contains(name) || is_image_name(name)).map(Into::into));
    }
    names.sort();
    Ok(names)
}

/// The finding about a comparison that returned a fault or none, or that failed.
fn finding(what: String, result: Result<Option<String>>) -> Finding {
    Finding { what, fault: result.unwrap_or_else(|error| Some(format!("{error:#}"))), note: None }
}

/// Compares a file with the manifest. `look` may read in it first; all of it is read for the checksum.
fn matches(
    directory: &Path,
    described: &FileEntry<FileName>,
    progress: Progress,
    look: impl FnOnce(&mut InOrder<File>),
) -> Result<Option<String>> {
    let path = directory.join(&described.name);
    // Opening a pipe would wait for its other end.
    ensure!(fs::metadata(&path).context("opening it")?.is_file(), "it is no regular file");
    let file = File::open(path).context("opening it")?;
    let length = file.metadata()?.len();
    let step = progress.step("Comparing a file", length);
    let mut file = InOrder { file, length, position: 0, digest: digest::Writer::new(io::sink()), step: &step };
    look(&mut file);
    file.read_up_to(length)?;
    let (_, bytes, sha256) = file.digest.finish();
    step.done();
    Ok(differs(&(bytes, sha256), described.bytes, &described.sha256, "manifest.json"))
}

/// Compares a directory without a manifest: the store image and the kernel's release with the plan.
fn without_manifest(directory: &Path, progress: Progress) -> Result<Vec<Finding>> {
    let Ramdisk { path, bytes: length, .. } = Ramdisk::open(directory)?;
    let step = progress.step("Comparing the store image", length);
    let mut file = InOrder {
        file: file::open(&path, "a whole build")?,
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
        Finding {
            what: "the kernel and the script".into(),
            fault: None,
            note: Some("NOT VERIFIED: there is no manifest.json".into()),
        },
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
    let first = name_at(ramdisk, manifest.before_images)?;
    if let Some(fault) = differs_from_plan(manifest, &plan, first.as_deref()) {
        return Ok(Some(fault));
    }
    compared(&plan, &found, &|image| {
        Ok(manifest.files.iter().any(|file| file.sha256 == image.sha256 && file.bytes == image.bytes))
    })
}

/// What a manifest says of the ramdisk and the plan does not; `first`: the member of the ramdisk at the place of the first store image.
fn differs_from_plan(manifest: &Manifest, plan: &Plan, first: Option<&Path>) -> Option<String> {
    let says = |field, one: &str, other: &str| Some(format!("the {field} is {one} and manifest.json says {other}"));
    let init = manifest.cmdline.rsplit(' ').find_map(|word| word.strip_prefix("init=")).unwrap_or_default();
    if manifest.init != plan.init {
        return says("init of the plan", &plan.init, &manifest.init);
    }
    if manifest.init != init {
        return says("init of its command line", init, &manifest.init);
    }
    if manifest.modules != plan.modules {
        return says("list of modules in the plan", &plan.modules.join(" "), &manifest.modules.join(" "));
    }
    let in_plan = |path: &str| plan.images.iter().any(|image| image.path == path);
    if let Some(image) = manifest.images.iter().find(|image| !in_plan(&image.path)) {
        return Some(format!("the plan names no store image {}, and manifest.json does", image.path));
    }
    let image = manifest.images.first().filter(|_| manifest.tree.is_empty())?;
    (manifest.before_images == 0 || first != Some(image.path.as_ref())).then(|| {
        format!("the store images do not begin at byte {}, which is what manifest.json says", manifest.before_images)
    })
}

/// The store images in a ramdisk by their paths: the length, bytes, and the SHA-256 of each.
type FoundImages = HashMap<String, (u64, String)>;

/// Finds the plan in the ramdisk, and the store images, which come after it. Of several plans the last one counts: the kernel
/// unpacks it over the others.
fn plan_and_images(ramdisk: &mut InOrder<File>) -> Result<(Plan, FoundImages)> {
    let (mut plan, mut found) = (None, FoundImages::new());
    let contents = ramdisk::read(ramdisk, &mut |entry, contents| {
        if entry.is_at(Path::new(plan::PATH)) {
            (plan, found) = (Some(read_plan(contents)?), FoundImages::new());
        } else if let Some(Ok(Plan { images, .. })) = &plan
            && let Some(image) = images.iter().find(|image| entry.is_at(Path::new(&image.path)))
        {
            found.insert(image.path.clone(), sha256(contents)?);
        }
        Ok(())
    })
    .context("the ramdisk")?;
    if let Some(stop) = contents.stop {
        bail!("the ramdisk: {stop}");
    }
    let plan = plan.with_context(|| format!("the ramdisk has no {}; build the system again", plan::PATH))??;
    Ok((plan, found))
}

/// Compares each image of a plan with the one in the ramdisk. For an image that is not in the ramdisk, `beside` tells whether a file
/// next to the ramdisk is the image.
fn compared(plan: &Plan, found: &FoundImages, beside: &dyn Fn(&Image) -> Result<bool>) -> Result<Option<String>> {
    for image in &plan.images {
        let fault = match found.get(&image.path) {
            Some(found) => differs(found, image.bytes, &image.sha256, "the plan"),
            None if beside(image)? => None,
            None => Some(format!(
                "{} is not in the ramdisk after the plan, and no file next to the ramdisk is the image",
                image.path
            )),
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

/// A file that is read in order and once, for its checksum. A reader may skip bytes; they are read all the same.
struct InOrder<'a, R> {
    file: R,
    length: u64,
    /// The place of the reader.
    position: u64,
    /// The checksum of the bytes before the farthest place that was read.
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
    use crate::contract::plan::VERSION;
    use crate::formats::cpio::{Archive, Node, Tree};
    use std::io::Cursor;

    #[test]
    fn directories_without_a_manifest() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (bytes, sha256) = sha256(&b"an image"[..]).unwrap();
        let plan = Plan {
            firn: String::new(),
            version: VERSION,
            kernel_release: "6.9".into(),
            init: "/init".into(),
            start: None,
            modules: Vec::new(),
            module_options: Vec::new(),
            images: vec![Image { path: plan::IMAGE.into(), bytes, sha256 }],
            database: None,
            verify: false,
            host_id: None,
            roots: Vec::new(),
        };
        let mut tree = Tree::default();
        tree.add(plan::PATH, Node::File { mode: 0o444, contents: plan.to_json().unwrap().into_bytes() });
        let mut ramdisk = Vec::new();
        tree.write(&mut ramdisk).unwrap();
        let mut archive = Archive::new(&mut ramdisk);
        archive.file(plan::IMAGE, 0o444, None, bytes, &b"an image"[..]).unwrap();
        archive.finish().unwrap();
        fs::write(path("initrd"), &ramdisk).unwrap();
        fs::write(path("bzImage"), "a kernel").unwrap();

        let findings = verify(directory.path(), Progress::Quiet).unwrap();
        assert!(findings.iter().all(|finding| finding.fault.is_none()), "{findings:?}");
        let notes: Vec<_> = findings.iter().filter_map(|finding| finding.note.as_deref()).collect();
        assert_eq!(notes, ["NOT VERIFIED: there is no manifest.json"]);

        let place = ramdisk.windows(8).position(|bytes| bytes == b"an image").unwrap();
        ramdisk[place] = b'A';
        fs::write(path("initrd"), &ramdisk).unwrap();
        let findings = verify(directory.path(), Progress::Quiet).unwrap();
        assert!(findings[0].fault.as_ref().unwrap().contains("and the plan says"), "{findings:?}");

        let error = verify(&path("initrd"), Progress::Quiet).unwrap_err().to_string();
        assert!(error.contains("verify needs a directory made by `firn build`"), "{error}");
    }

    #[test]
    fn all_of_a_file_is_read_once_though_a_reader_skips() {
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
