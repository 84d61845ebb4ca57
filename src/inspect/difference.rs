//! The differences between two builds, ramdisks or unified kernel images, or between two store images.

use crate::formats::cmdline;
use crate::formats::modules::module_name;
use crate::inspect::store::StorePath;
use crate::inspect::summary::{RamdiskSummary, Summary};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// The differences.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The release of the kernel, before and after.
    pub kernel_release: Option<(String, String)>,
    /// Parameters of the kernel, if both builds have a command line.
    pub cmdline: Change<String>,
    /// Kernel modules in the ramdisk, by name.
    pub modules: Change<String>,
    /// Store paths.
    pub store_paths: Change<StorePath>,
    /// Store paths that Nix keeps in the running system, with their closures, as far as the ramdisk names them.
    pub roots: Change<String>,
    /// The size of all store paths, bytes, before and after.
    pub store_bytes: (u64, u64),
}

/// Differences of two lists, sorted.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// Only in the first.
    pub removed: Vec<T>,
    /// Only in the second.
    pub added: Vec<T>,
}

impl<T> Default for Change<T> {
    fn default() -> Self {
        Self { removed: Vec::new(), added: Vec::new() }
    }
}

/// The things that are compared.
#[derive(Default)]
struct Facts {
    kernel_release: String,
    /// None of a ramdisk alone: only the boot loader knows its command line.
    cmdline: Option<BTreeSet<String>>,
    modules: BTreeSet<String>,
    store_paths: BTreeSet<StorePath>,
    roots: BTreeSet<String>,
}

/// Compares the builds, ramdisks, unified kernel images or store images at two paths. A build can be compared with a ramdisk, too.
///
/// # Errors
///
/// A path that cannot be read, a store image and something else, or store paths that are not known.
pub fn between(before: &Path, after: &Path) -> Result<Difference> {
    let (of_before, of_after) = (Summary::of(before)?, Summary::of(after)?);
    for ramdisk in [&of_before, &of_after].into_iter().filter_map(Summary::ramdisk) {
        ensure!(
            ramdisk.stop.is_none(),
            "{}: {}",
            ramdisk.path,
            ramdisk.stop.iter().map(ToString::to_string).collect::<String>()
        );
    }
    let is_image = |summary: &Summary| matches!(summary, Summary::Image(_));
    ensure!(
        is_image(&of_before) == is_image(&of_after),
        "{} is {} and {} is {}: compare two builds, ramdisks or unified kernel images, or two store images",
        before.display(),
        of_before.noun(),
        after.display(),
        of_after.noun()
    );
    Ok(difference(&facts(of_before, before)?, &facts(of_after, after)?))
}

fn difference(before: &Facts, after: &Facts) -> Difference {
    let releases = (before.kernel_release.clone(), after.kernel_release.clone());
    let both = |(before, after)| change(before, after);
    let bytes = |facts: &Facts| facts.store_paths.iter().map(|path| path.bytes).sum();
    Difference {
        kernel_release: (releases.0 != releases.1).then_some(releases),
        cmdline: before.cmdline.as_ref().zip(after.cmdline.as_ref()).map_or_else(Change::default, both),
        modules: change(&before.modules, &after.modules),
        store_paths: change(&before.store_paths, &after.store_paths),
        roots: change(&before.roots, &after.roots),
        store_bytes: (bytes(before), bytes(after)),
    }
}

fn change<T: Ord + Clone>(before: &BTreeSet<T>, after: &BTreeSet<T>) -> Change<T> {
    Change { removed: before.difference(after).cloned().collect(), added: after.difference(before).cloned().collect() }
}

fn facts(summary: Summary, path: &Path) -> Result<Facts> {
    Ok(match summary {
        Summary::Build(build) => {
            Facts { cmdline: build.manifest.map(|manifest| words(&manifest.cmdline)), ..of_ramdisk(build.ramdisk)? }
        }
        Summary::Ramdisk(ramdisk) => of_ramdisk(*ramdisk)?,
        Summary::Uki(uki) => {
            let ramdisk = uki.ramdisk.with_context(|| {
                format!(
                    "{} is a unified kernel image without a ramdisk (section .initrd); compare two that have one",
                    uki.path
                )
            })?;
            Facts { cmdline: Some(words(&uki.uki.cmdline)), ..of_ramdisk(ramdisk)? }
        }
        Summary::Image(image) => match image.unknown {
            None => Facts { store_paths: image.store_paths.into_iter().collect(), ..Facts::default() },
            Some(reason) => bail!("{}: its store paths cannot be compared: {reason}", path.display()),
        },
        Summary::Kernel(_) => {
            bail!(
                "{} is a kernel; compare two builds, ramdisks or unified kernel images, or two store images",
                path.display()
            )
        }
    })
}

fn of_ramdisk(ramdisk: RamdiskSummary) -> Result<Facts> {
    let mut facts = Facts {
        kernel_release: ramdisk.kernel_release.unwrap_or_default(),
        modules: ramdisk.modules.iter().map(|path| module_name(path)).collect(),
        roots: ramdisk.plan.iter().flat_map(|plan| plan.roots.clone()).collect(),
        ..Facts::default()
    };
    if ramdisk.images.is_empty() && ramdisk.plan.is_some() {
        bail!(
            "{} has no store image: the boot loader adds it; compare the build that the ramdisk is from",
            ramdisk.path
        );
    }
    for image in ramdisk.images {
        if let Some(reason) = image.unknown {
            bail!("{} in {}: its store paths cannot be compared: {reason}", image.path, ramdisk.path);
        }
        facts.store_paths.extend(image.store_paths);
    }
    Ok(facts)
}

/// The words of a command line, as the kernel splits it.
fn words(cmdline: &str) -> BTreeSet<String> {
    cmdline::split(cmdline.as_bytes()).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(release: &str, words: &[&str], paths: &[(&str, u64)]) -> Facts {
        Facts {
            kernel_release: release.into(),
            cmdline: Some(words.iter().map(|word| (*word).into()).collect()),
            modules: BTreeSet::new(),
            store_paths: paths.iter().map(|(path, bytes)| StorePath { path: (*path).into(), bytes: *bytes }).collect(),
            roots: paths.iter().take(1).map(|(path, _)| (*path).into()).collect(),
        }
    }

    #[test]
    fn c_5_a_word_with_spaces_is_one() {
        let expected = ["a=\"b c\"", "quiet"].map(String::from);
        assert_eq!(words("quiet a=\"b c\" quiet"), expected.into());
    }

    #[test]
    fn differences() {
        let before = facts("6.1", &["quiet", "a=1"], &[("/nix/store/a", 10), ("/nix/store/b", 5)]);
        let after = facts("6.12", &["quiet", "a=2"], &[("/nix/store/b", 5), ("/nix/store/c", 7)]);
        let found = difference(&before, &after);
        assert_eq!(found.kernel_release, Some(("6.1".into(), "6.12".into())));
        assert_eq!((&found.cmdline.removed[..], &found.cmdline.added[..]), (&["a=1".into()][..], &["a=2".into()][..]));
        assert_eq!(found.store_paths.removed, [StorePath { path: "/nix/store/a".into(), bytes: 10 }]);
        assert_eq!(found.store_paths.added, [StorePath { path: "/nix/store/c".into(), bytes: 7 }]);
        assert_eq!(
            (&found.roots.removed[..], &found.roots.added[..]),
            (&["/nix/store/a".into()][..], &["/nix/store/b".into()][..])
        );
        assert_eq!(found.store_bytes, (15, 12));
        let none = difference(&after, &after);
        assert_eq!(none, Difference { store_bytes: (12, 12), ..Difference::default() });
    }
}
