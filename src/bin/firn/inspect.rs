//! `firn inspect`: a summary of a build, a ramdisk, a store image, a kernel or a unified kernel image.

use crate::text::{self, size};
use anyhow::Result;
use clap::Args;
use firn::formats::modules::module_name;
use firn::formats::printable::printable_line;
use firn::inspect::store::StoreImage;
use firn::inspect::summary::{Kernel, RamdiskSummary, Summary, UkiSummary};
use std::io::{self, Write};
use std::path::PathBuf;

/// How many store paths are printed.
const LARGEST: usize = 10;

/// The arguments of `firn inspect`.
#[derive(Args)]
pub struct Inspect {
    /// Directory made by firn build, ipxe or kexec; or any ramdisk, a store image, a kernel, or a unified kernel image
    path: PathBuf,

    /// Print JSON, with all store paths
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Prints the summary.
    pub fn run(self) -> Result<()> {
        let summary = Summary::of(&self.path)?;
        if self.json {
            text::print_json(&summary)?;
        } else {
            text::print(|out| Ok(show(&summary, out)?))?;
        }
        text::judge_summary(&summary)
    }
}

fn show(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    match summary {
        Summary::Build(build) => {
            if let Some(manifest) = &build.manifest {
                writeln!(out, "{}, {}, by firn {}", manifest.label, manifest.system, manifest.firn)?;
                writeln!(out, "  command line: {}", manifest.cmdline)?;
            }
            kernel(&build.kernel, out)?;
            ramdisk(&build.ramdisk, out)
        }
        Summary::Ramdisk(contents) => ramdisk(contents, out),
        Summary::Image(found) => image(found, out),
        Summary::Kernel(found) => kernel(found, out),
        Summary::Uki(found) => uki(found, out),
    }
}

fn uki(summary: &UkiSummary, out: &mut dyn Write) -> io::Result<()> {
    let uki = &summary.uki;
    let signed = if uki.is_signed { "signed (the signature is not checked)" } else { "not signed" };
    writeln!(out, "{}: a unified kernel image for {}, {}, {signed}", summary.path, uki.machine, size(summary.bytes))?;
    writeln!(out, "  {:<9}  {:>12}  {:>10}  {:>10}", "section", "offset", "size", "in memory")?;
    for section in &uki.sections {
        let (name, offset) = (printable_line(&section.name), section.offset);
        let profile = section.profile.map(|number| format!("  profile {number}")).unwrap_or_default();
        let unread = if section.is_read { "" } else { "  not read: another one takes its place" };
        let (bytes, memory) = (size(section.bytes), size(section.memory));
        writeln!(out, "  {name:<9}  {offset:>12}  {bytes:>10}  {memory:>10}{profile}{unread}")?;
    }
    if let Some(system) = uki.system() {
        writeln!(out, "  system: {}", printable_line(&system))?;
    }
    if let Some(release) = &uki.uname {
        writeln!(out, "  uname: {}", printable_line(release))?;
    }
    match uki.cmdline.as_str() {
        "" => writeln!(out, "  no command line")?,
        cmdline => writeln!(out, "  command line: {}", printable_line(cmdline))?,
    }
    for (number, profile) in uki.profiles.iter().enumerate() {
        let named = |name| profile.variables.get(name).map(|value| printable_line(value)).unwrap_or_default();
        writeln!(
            out,
            "  profile {number}: {}, \"{}\", command line: {}",
            named("ID"),
            named("TITLE"),
            printable_line(&profile.cmdline)
        )?;
    }
    kernel(&summary.kernel, out)?;
    match &summary.ramdisk {
        Some(found) => ramdisk(found, out),
        None => writeln!(out, "  no ramdisk"),
    }
}

fn kernel(kernel: &Kernel, out: &mut dyn Write) -> io::Result<()> {
    let release = printable_line(kernel.release.as_deref().unwrap_or("of unknown release"));
    writeln!(out, "{}: Linux {release}, {}", kernel.path, size(kernel.bytes))
}

fn ramdisk(ramdisk: &RamdiskSummary, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: a ramdisk, {}", ramdisk.path, size(ramdisk.bytes))?;
    writeln!(out, "  {:>12}  {:<11}  {:>10}  {:>10}  {:>7}", "offset", "compression", "packed", "unpacked", "files")?;
    for segment in &ramdisk.segments {
        let (packed, unpacked) = (size(segment.packed), size(segment.unpacked));
        let (offset, compression, members) = (segment.offset, segment.compression, segment.members);
        writeln!(out, "  {offset:>12}  {compression:<11}  {packed:>10}  {unpacked:>10}  {members:>7}")?;
    }
    if let Some(release) = &ramdisk.kernel_release {
        writeln!(out, "  for the kernel: {}", printable_line(release))?;
    }
    match (&ramdisk.plan, &ramdisk.bad_plan) {
        (Some(plan), _) => {
            writeln!(out, "  starts: {}", plan.init)?;
            let modules: Vec<_> = plan.modules.iter().map(|path| module_name(path)).collect();
            writeln!(out, "  loads: {}", modules.join(" "))?;
            for root in &plan.roots {
                writeln!(out, "  keeps: {root}")?;
            }
            for image in &plan.images {
                writeln!(out, "  mounts: {}, {}, SHA-256 {}", image.path, size(image.bytes), image.sha256)?;
            }
        }
        (None, Some(reason)) => writeln!(out, "  the plan is unreadable: {}", printable_line(reason))?,
        (None, None) => writeln!(out, "  no plan: not made by firn")?,
    }
    writeln!(out, "  kernel modules: {}", ramdisk.modules.len())?;
    if ramdisk.images.is_empty() && ramdisk.plan.is_some() {
        writeln!(out, "  store image: not in this ramdisk; the boot loader has to add it")?;
    }
    ramdisk.images.iter().try_for_each(|found| image(found, out))
}

fn image(image: &StoreImage, out: &mut dyn Write) -> io::Result<()> {
    let place = image.offset.filter(|offset| *offset > 0).map(|offset| format!(" at offset {offset}"));
    writeln!(
        out,
        "{}{}: {}, compression {}, blocks of {}, {} files, {}",
        printable_line(&image.path),
        place.unwrap_or_default(),
        image.superblock.format,
        image.superblock.compressor,
        size(image.superblock.block_size),
        image.superblock.inodes,
        size(image.bytes)
    )?;
    if let Some(reason) = &image.unknown {
        return writeln!(out, "  store paths unknown: {}", printable_line(reason));
    }
    if image.store_paths.is_empty() {
        return writeln!(out, "  store paths: listed in the last image");
    }
    writeln!(out, "  store paths: {}, {}; the largest:", image.store_paths.len(), size(image.unpacked()))?;
    let mut paths: Vec<_> = image.store_paths.iter().collect();
    paths.sort_by_key(|path| std::cmp::Reverse(path.bytes));
    for path in paths.iter().take(LARGEST) {
        writeln!(out, "  {:>12}  {}", size(path.bytes), path.path)?;
    }
    Ok(())
}
