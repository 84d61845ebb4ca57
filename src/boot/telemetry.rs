//! The report on the boot for the running system: [`PATH`].

use crate::boot::console::kmsg;
use crate::boot::images::Found;
use crate::boot::kernel::file;
use crate::boot::kernel::memory::{self, Memory};
use crate::boot::kernel::release::kernel_release;
use crate::boot::step::Steps;
use crate::boot::system::System;
use crate::contract::kind::Kind;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// The path of the report in the running system.
const PATH: &str = "/run/firn/boot.json";

/// The contents of [`PATH`].
#[derive(Serialize)]
struct BootReport<'a> {
    /// The version of firn-init.
    firn: &'static str,
    init: &'a str,
    toplevel: Option<&'a str>,
    hand_over: Kind,
    /// `uname -r`.
    kernel_release: Option<String>,
    /// The store images.
    images: Vec<ReportedImage<'a>>,
    steps: &'a Steps,
    /// `MemAvailable`, kB, before the first module was loaded and after the initramfs was emptied.
    memory_before: Option<u64>,
    memory_after: Option<u64>,
    /// The messages of level warning or worse.
    warnings: Vec<String>,
}

/// A store image.
#[derive(Serialize)]
struct ReportedImage<'a> {
    /// Its path in the ramdisk.
    path: String,
    /// The file or device that it was mounted from.
    source: &'a str,
}

/// Writes the report. A failure is only a warning.
pub fn write(steps: &Steps, images: &[Found], system: &System, memory_before: Option<&Memory>) {
    let report = BootReport {
        firn: env!("CARGO_PKG_VERSION"),
        init: &system.init,
        toplevel: system.toplevel.as_deref(),
        hand_over: system.kind,
        kernel_release: kernel_release().ok(),
        images: images
            .iter()
            .map(|image| ReportedImage { path: image.path.clone(), source: image.backing.path() })
            .collect(),
        steps,
        memory_before: memory_before.map(available_kb),
        memory_after: memory::now().as_ref().map(available_kb),
        warnings: kmsg::warnings(),
    };
    if let Err(error) = write_json(&report) {
        log::warn!("Writing {PATH}: {error:#}");
    }
}

fn available_kb(memory: &Memory) -> u64 {
    memory.available >> 10
}

fn write_json(report: &BootReport<'_>) -> Result<()> {
    let json = serde_json::to_vec_pretty(report)?;
    fs::create_dir_all(Path::new(PATH).parent().context("no directory")?)?;
    file::replace(PATH, &json)
}
