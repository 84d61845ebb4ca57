//! Store images that are kept from one build to the next. Most of a closure is the same in the next build; what is large and
//! stays lies in layers of its own, by content in a directory, and only the rest is packed again.

use crate::build::output::directory::link_or_copy;
use crate::build::store::divide::divide;
use crate::build::store::packing::Packing;
use crate::contract::manifest::FileEntry;
use crate::formats::digest::sha256;
use crate::formats::registration::Registered;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The last image, which every build packs anew, has this part of the store at first: what is most likely to change.
const CHANGING: u64 = 128;

/// No layer is made for less, bytes as NARs.
const SMALLEST_LAYER: u64 = 4 << 20;

/// Where layers are kept, and how many images there may be.
#[derive(Debug, Clone)]
pub struct Layers {
    /// The directory. Everything in it may be deleted at any time.
    pub cache: PathBuf,
    /// The largest number of images, with the last one that is no layer.
    pub count: usize,
}

/// A layer of the cache, or one that belongs there.
#[derive(Debug)]
pub struct Layer {
    /// The paths in it, sorted.
    pub paths: Vec<Registered>,
    /// What its files are called: it follows from the paths and from how they are packed.
    key: String,
}

/// What is known of a layer that is there.
#[derive(Serialize, Deserialize)]
struct Description {
    /// Store paths and the hashes of their NARs.
    paths: Vec<(String, String)>,
    bytes: u64,
    sha256: String,
}

impl Layers {
    /// Divides a closure into layers and what is packed anew.
    ///
    /// First come the layers of the cache all of whose paths are in the closure, the largest first; then, as long as there may be
    /// more images, new ones of what is large.
    ///
    /// # Errors
    ///
    /// A cache that cannot be read.
    pub fn plan(&self, closure: &[Registered], packing: &Packing) -> Result<(Vec<Layer>, Vec<Registered>)> {
        let mut left = closure.to_vec();
        let mut layers = Vec::new();
        let mut known = self.known(packing)?;
        known.sort_by_cached_key(|paths| {
            let bytes: u64 =
                closure.iter().filter(|path| paths.contains(&identity(path))).map(|path| path.nar_size).sum();
            let mut sorted: Vec<_> = paths.iter().cloned().collect();
            sorted.sort();
            (std::cmp::Reverse(bytes), sorted)
        });
        for wanted in known {
            let found = left.iter().filter(|path| wanted.contains(&identity(path))).count();
            if found == wanted.len() && layers.len() + 1 < self.count {
                let (paths, rest) = left.into_iter().partition(|path| wanted.contains(&identity(path)));
                left = rest;
                layers.push(Layer::of(paths, packing));
            }
        }
        let (large, changing) = split(closure, left);
        let room = self.count.saturating_sub(1 + layers.len());
        let bytes: u64 = large.iter().map(|path| path.nar_size).sum();
        let count = room.min(usize::try_from(bytes / SMALLEST_LAYER)?);
        if count == 0 {
            let mut rest = [large, changing].concat();
            rest.sort();
            return Ok((layers, rest));
        }
        layers.extend(divide(&large, count).into_iter().map(|paths| Layer::of(paths.to_vec(), packing)));
        // One order, whichever of them are there.
        layers.sort_by_cached_key(|layer| {
            let bytes: u64 = layer.paths.iter().map(|path| path.nar_size).sum();
            (std::cmp::Reverse(bytes), layer.paths.first().map(identity))
        });
        Ok((layers, changing))
    }

    /// The image of a layer and its description, if the cache has it.
    #[must_use]
    pub fn get(&self, layer: &Layer, suffix: &str) -> Option<(PathBuf, FileEntry)> {
        let image = self.cache.join(format!("{}{suffix}", layer.key));
        let Description { bytes, sha256, .. } = read(&self.description(layer))?;
        let whole = fs::metadata(&image).is_ok_and(|metadata| metadata.len() == bytes);
        whole.then(|| (image, FileEntry { name: String::new(), bytes, sha256 }))
    }

    /// Keeps the image of a layer that was made.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn put(&self, layer: &Layer, suffix: &str, image: &Path, entry: &FileEntry) -> Result<()> {
        let paths = layer.paths.iter().map(identity).collect();
        let description = Description { paths, bytes: entry.bytes, sha256: entry.sha256.clone() };
        let keep = || -> Result<()> {
            fs::create_dir_all(&self.cache)?;
            let staging = tempfile::Builder::new().prefix(".firn-").tempdir_in(&self.cache)?;
            let (file, text) = (staging.path().join("image"), staging.path().join("text"));
            link_or_copy(image, &file)?;
            fs::write(&text, serde_json::to_vec(&description)?)?;
            // The description last: without it there is no layer.
            fs::rename(file, self.cache.join(format!("{}{suffix}", layer.key)))?;
            fs::rename(text, self.description(layer))?;
            Ok(())
        };
        keep().with_context(|| format!("keeping a layer in {}", self.cache.display()))
    }

    fn description(&self, layer: &Layer) -> PathBuf {
        self.cache.join(format!("{}.json", layer.key))
    }

    /// The contents of the layers that are packed like this. What is damaged counts as not there.
    fn known(&self, packing: &Packing) -> Result<Vec<HashSet<(String, String)>>> {
        let context = || format!("reading the cache {}", self.cache.display());
        let mut known = Vec::new();
        if !self.cache.exists() {
            return Ok(known);
        }
        for entry in fs::read_dir(&self.cache).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if stem.starts_with(&prefix(packing)) && path.extension() == Some("json".as_ref()) {
                known.extend(read(&path).map(|description| description.paths.into_iter().collect()));
            }
        }
        Ok(known)
    }
}

impl Layer {
    fn of(paths: Vec<Registered>, packing: &Packing) -> Self {
        let text: Vec<_> = paths.iter().map(|path| format!("{} {}", path.path, path.nar_hash)).collect();
        Self { key: format!("{}{}", prefix(packing), hash(&text.join("\n"))), paths }
    }
}

/// How the names of all layers begin that are packed in one way.
fn prefix(packing: &Packing) -> String {
    format!("{}-", hash(&format!("{} {} {}", packing.format.name(), packing.compression(), packing.block_size())))
}

fn hash(text: &str) -> String {
    let (_, digits) = sha256(text.as_bytes()).unwrap_or_default();
    digits.chars().take(32).collect()
}

/// What makes a path the same path.
fn identity(path: &Registered) -> (String, String) {
    (path.path.clone(), path.nar_hash.clone())
}

fn read(description: &Path) -> Option<Description> {
    serde_json::from_slice(&fs::read(description).ok()?).ok()
}

/// The paths of `left` that stay, and those that are among the likeliest of the closure to change, together a [`CHANGING`]th of
/// it.
fn split(closure: &[Registered], left: Vec<Registered>) -> (Vec<Registered>, Vec<Registered>) {
    let mut sizes: Vec<_> = closure.iter().map(|path| (inertia(path), path.nar_size)).collect();
    let mut room = closure.iter().map(|path| path.nar_size).sum::<u64>() / CHANGING;
    sizes.sort_unstable();
    let fits = |(_, size): &(u64, u64)| room.checked_sub(*size).map(|less| room = less).is_some();
    let last = sizes.into_iter().take_while(fits).last();
    left.into_iter().partition(|path| last.is_none_or(|(last, _)| inertia(path) > last))
}

/// How unlikely a path is to change. A configuration changes what is small; and what is put together of many others, such as
/// NixOS' `system-path` or its units, is another one with each of them.
fn inertia(path: &Registered) -> u64 {
    path.nar_size / (1 + path.references.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::output::directory::describe;
    use crate::host::progress::Progress;

    fn path(name: &str, mib: u64) -> Registered {
        Registered {
            path: format!("/nix/store/{name}"),
            nar_hash: format!("sha256:{name}"),
            nar_size: mib << 20,
            references: Vec::new(),
        }
    }

    fn names(paths: &[Registered]) -> String {
        paths.iter().filter_map(|path| path.path.rsplit('/').next()).collect::<Vec<_>>().join(" ")
    }

    /// Plans a build and carries it out, as far as the cache is concerned: the layers, each with a + if it was there, and the rest.
    fn build(layers: &Layers, closure: &[Registered], packing: &Packing) -> Vec<String> {
        let (planned, rest) = layers.plan(closure, packing).unwrap();
        let mut said = Vec::new();
        for layer in &planned {
            let was_there = layers.get(layer, ".image").is_some();
            if !was_there {
                let image = layers.cache.with_extension("image");
                fs::write(&image, names(&layer.paths)).unwrap();
                layers.put(layer, ".image", &image, &describe(&image, Progress::Quiet).unwrap()).unwrap();
                fs::remove_file(image).unwrap();
            }
            let (image, entry) = layers.get(layer, ".image").unwrap();
            assert_eq!(fs::read_to_string(image).unwrap(), names(&layer.paths));
            assert_eq!(entry.bytes, names(&layer.paths).len() as u64);
            said.push(format!("{}{}", if was_there { "+" } else { "" }, names(&layer.paths)));
        }
        said.push(names(&rest));
        said
    }

    #[test]
    fn what_stays_is_taken_from_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let layers = Layers { cache: directory.path().join("cache"), count: 3 };
        let packing = Packing::default();
        let first = [path("a", 100), path("b", 100), path("c", 100), path("d", 100), path("etc", 1), path("top", 0)];
        assert_eq!(build(&layers, &first, &packing), ["a b", "c d", "etc top"]);
        // The same again; a small path that changes; a large one.
        assert_eq!(build(&layers, &first, &packing), ["+a b", "+c d", "etc top"]);
        let [a, b, c, d, _, top] = first.clone();
        let second = [a.clone(), b, c.clone(), d.clone(), path("etc2", 2), top.clone()];
        assert_eq!(build(&layers, &second, &packing), ["+a b", "+c d", "etc2 top"]);
        let third = [a, path("b2", 100), c, d, path("etc2", 2), top];
        assert_eq!(build(&layers, &third, &packing), ["a b2", "+c d", "etc2 top"]);
        // Another hash is another path, and another way to pack another cache.
        let mut fourth = third.clone();
        fourth[3].nar_hash = "sha256:other".into();
        assert_eq!(build(&layers, &fourth, &packing), ["+a b2", "c d", "etc2 top"]);
        let small = Packing { block_size: Some(4096), ..Packing::default() };
        assert_eq!(build(&layers, &first, &small), ["a b", "c d", "etc top"]);
        assert_eq!(build(&Layers { count: 1, ..layers.clone() }, &first, &packing), ["a b c d etc top"]);

        // A layer that is damaged is made again, and one without a description is none.
        let (image, _) = layers.get(&layers.plan(&first, &packing).unwrap().0[0], ".image").unwrap();
        fs::write(&image, "").unwrap();
        assert_eq!(build(&layers, &first, &packing), ["a b", "+c d", "etc top"]);
        fs::write(image.with_extension("json"), "{").unwrap();
        assert_eq!(build(&layers, &first, &packing), ["a b", "+c d", "etc top"]);
    }

    #[test]
    fn what_is_put_together_of_others_is_packed_with_the_small_paths() {
        let references = (0..1000).map(|number| format!("/nix/store/{number}")).collect();
        let system_path = Registered { references, ..path("system-path", 5) };
        let closure = [path("a", 800), path("b", 5), path("etc", 1), system_path];
        let (large, changing) = split(&closure, closure.to_vec());
        assert_eq!([names(&large), names(&changing)], ["a b", "etc system-path"]);
    }

    #[test]
    fn little_is_no_layer() {
        let directory = tempfile::tempdir().unwrap();
        let layers = Layers { cache: directory.path().join("cache"), count: 5 };
        assert_eq!(build(&layers, &[path("a", 1), path("b", 2)], &Packing::default()), ["a b"]);
        assert_eq!(build(&layers, &[path("a", 5), path("b", 0)], &Packing::default()), ["a", "b"]);
    }
}
