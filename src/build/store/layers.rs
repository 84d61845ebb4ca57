//! Store images that are kept from one build to the next. Most of a closure is the same in the next build: its large and stable
//! paths are packed as layers, which lie in a cache directory under a name that follows from their content, and only the rest
//! is packed again.

use crate::build::output::directory::{clone_or_copy, describe};
use crate::build::store::divide::divide;
use crate::build::store::packing::Packing;
use crate::contract::manifest::FileEntry;
use crate::formats::digest::sha256;
use crate::formats::registration::Registered;
use crate::host::directory_lock::DirectoryLock;
use crate::host::progress::Progress;
use crate::host::staging::{Claim, Staging};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// At first the last image, which every build packs anew, gets this fraction (1/128) of the store: the paths that are most
/// likely to change.
const VOLATILE_SHARE: u64 = 128;

/// The smallest layer, bytes as NARs.
const SMALLEST_LAYER: u64 = 4 << 20;

/// A directory of layers, and the limit of images.
#[derive(Debug, Clone)]
pub struct LayerCache {
    /// The directory. Everything in it may be deleted at any time.
    pub directory: PathBuf,
    /// The largest number of images, including the last one, which is no layer.
    pub max_images: usize,
}

/// A layer that is in the cache, or that will be.
#[derive(Debug)]
pub struct Layer {
    /// Its store paths, sorted.
    pub paths: Vec<Registered>,
    /// The name of its files without the suffix; it follows from the paths and from how they are packed.
    key: String,
}

/// The state of a layer in the cache.
#[derive(Debug)]
pub enum Cached {
    /// The image, and its size and SHA-256. They were compared with the description just now. The name is empty.
    Whole(PathBuf, FileEntry),
    /// There is no such layer.
    Missing,
    /// The file that is damaged, and in which way. The layer has to be packed again.
    Damaged(PathBuf, String),
}

/// The description of a layer: the file `KEY.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    /// Store paths and the hashes of their NARs.
    paths: Vec<Identity>,
    /// The size of the image, bytes.
    bytes: u64,
    /// The SHA-256 of the image, hexadecimal.
    sha256: String,
}

/// A store path and the hash of its NAR: two paths with the same identity have the same content.
type Identity = (String, String);

impl LayerCache {
    /// Divides a closure into layers and the rest, which is packed anew.
    ///
    /// The layers are those of the cache whose paths are all in the closure; and, while the limit of images allows more, new
    /// layers of the large and stable paths.
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
        for cached in known {
            let found = left.iter().filter(|path| cached.contains(&identity(path))).count();
            if found == cached.len() && layers.len() + 1 < self.max_images {
                let (paths, rest) = left.into_iter().partition(|path| cached.contains(&identity(path)));
                left = rest;
                layers.push(Layer::of(paths, packing));
            }
        }
        let (large, changing) = split(closure, left);
        let room = self.max_images.saturating_sub(1 + layers.len());
        let bytes: u64 = large.iter().map(|path| path.nar_size).sum();
        let count = room.min(usize::try_from(bytes / SMALLEST_LAYER)?);
        if count == 0 {
            let mut rest = [large, changing].concat();
            rest.sort();
            return Ok((layers, rest));
        }
        layers.extend(divide(&large, count).into_iter().map(|paths| Layer::of(paths.to_vec(), packing)));
        // The order does not depend on which layers are in the cache.
        layers.sort_by_cached_key(|layer| {
            let bytes: u64 = layer.paths.iter().map(|path| path.nar_size).sum();
            (std::cmp::Reverse(bytes), layer.paths.first().map(identity))
        });
        Ok((layers, changing))
    }

    /// Looks for a layer. Its whole image is compared with the description: a file of the cache may be truncated, and it shares its
    /// data with the outputs of earlier builds, which other programs may change.
    #[must_use]
    pub fn get(&self, layer: &Layer, suffix: &str, progress: Progress) -> Cached {
        let path = self.description(layer);
        let description = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Cached::Missing,
            Err(error) => return Cached::Damaged(path, error.to_string()),
            Ok(json) => match serde_json::from_slice::<Description>(&json) {
                Err(error) => return Cached::Damaged(path, error.to_string()),
                Ok(description) => description,
            },
        };
        if description.paths != layer.identities() {
            return Cached::Damaged(path, "it describes other store paths".into());
        }
        let image = self.directory.join(format!("{}{suffix}", layer.key));
        // The size first: it costs nothing.
        let entry = match fs::metadata(&image) {
            Ok(metadata) if metadata.len() != description.bytes => {
                let reason = format!("it has {} bytes instead of {}", metadata.len(), description.bytes);
                return Cached::Damaged(image, reason);
            }
            Ok(_) => describe(&image, progress),
            Err(error) => Err(error.into()),
        };
        match entry {
            Err(error) => Cached::Damaged(image, format!("{error:#}")),
            Ok(entry) if entry.bytes != description.bytes || entry.sha256 != description.sha256 => {
                let reason = format!("its SHA-256 is {} instead of {}", entry.sha256, description.sha256);
                Cached::Damaged(image, reason)
            }
            Ok(entry) => Cached::Whole(image, FileEntry { name: String::new(), ..entry }),
        }
    }

    /// Keeps the image of a new layer.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn put(&self, layer: &Layer, suffix: &str, image: &Path, entry: &FileEntry) -> Result<()> {
        let description = Description { paths: layer.identities(), bytes: entry.bytes, sha256: entry.sha256.clone() };
        let keep = || -> Result<()> {
            fs::create_dir_all(&self.directory)?;
            let staging = Staging::create(&DirectoryLock::take(&self.directory)?, Claim::Nothing)?;
            let (file, text) = (staging.path().join("image"), staging.path().join("text"));
            clone_or_copy(image, &file)?;
            fs::write(&text, serde_json::to_vec(&description)?)?;
            // The description last: without it the cache has no such layer.
            fs::rename(file, self.directory.join(format!("{}{suffix}", layer.key)))?;
            fs::rename(text, self.description(layer))?;
            Ok(())
        };
        keep().with_context(|| format!("keeping a layer in {}", self.directory.display()))
    }

    fn description(&self, layer: &Layer) -> PathBuf {
        self.directory.join(format!("{}.json", layer.key))
    }

    /// The store paths of each layer that is packed like this. A description that cannot be read, or that is not the one its name
    /// says, is left out.
    fn known(&self, packing: &Packing) -> Result<Vec<HashSet<Identity>>> {
        let context = || format!("reading the layer cache {}", self.directory.display());
        let mut known = Vec::new();
        if !self.directory.exists() {
            return Ok(known);
        }
        for entry in fs::read_dir(&self.directory).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if stem.starts_with(&prefix(packing)) && path.extension() == Some("json".as_ref()) {
                let paths = read(&path).map(|description| description.paths);
                known
                    .extend(paths.filter(|paths| key(packing, paths) == stem).map(|paths| paths.into_iter().collect()));
            }
        }
        Ok(known)
    }
}

impl Layer {
    fn of(paths: Vec<Registered>, packing: &Packing) -> Self {
        let identities: Vec<_> = paths.iter().map(identity).collect();
        Self { key: key(packing, &identities), paths }
    }

    fn identities(&self) -> Vec<Identity> {
        self.paths.iter().map(identity).collect()
    }
}

/// The name of the files of a layer, without the suffix.
fn key(packing: &Packing, paths: &[Identity]) -> String {
    let text: Vec<_> = paths.iter().map(|(path, nar_hash)| format!("{path} {nar_hash}")).collect();
    format!("{}{}", prefix(packing), hash(&text.join("\n")))
}

/// The beginning of the names of all layers that are packed in one way.
fn prefix(packing: &Packing) -> String {
    format!("{}-", hash(&format!("{} {} {}", packing.format.name(), packing.compression(), packing.block_size())))
}

fn hash(text: &str) -> String {
    let (_, digits) = sha256(text.as_bytes()).unwrap_or_default();
    digits.chars().take(32).collect()
}

fn identity(path: &Registered) -> Identity {
    (path.path.clone(), path.nar_hash.clone())
}

fn read(description: &Path) -> Option<Description> {
    serde_json::from_slice(&fs::read(description).ok()?).ok()
}

/// Divides `left` into stable paths and volatile ones: those that are the least stable of the closure, up to 1 /
/// [`VOLATILE_SHARE`] of its size.
fn split(closure: &[Registered], left: Vec<Registered>) -> (Vec<Registered>, Vec<Registered>) {
    let mut sizes: Vec<_> = closure.iter().map(|path| (stability(path), path.nar_size)).collect();
    let mut room = closure.iter().map(|path| path.nar_size).sum::<u64>() / VOLATILE_SHARE;
    sizes.sort_unstable();
    let fits = |(_, size): &(u64, u64)| room.checked_sub(*size).map(|less| room = less).is_some();
    let last = sizes.into_iter().take_while(fits).last();
    left.into_iter().partition(|path| last.is_none_or(|(last, _)| stability(path) > last))
}

/// A number that is higher for paths that change less often. A change of the configuration changes small paths. A path with many
/// references, such as `system-path` of NixOS or its units, changes with each of them.
fn stability(path: &Registered) -> u64 {
    path.nar_size / (1 + path.references.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str, mib: u64) -> Registered {
        Registered {
            path: format!("/nix/store/{name}"),
            nar_hash: format!("sha256:{name}"),
            nar_size: mib << 20,
            references: Vec::new(),
        }
    }

    fn cache(directory: &tempfile::TempDir, max_images: usize) -> LayerCache {
        LayerCache { directory: directory.path().join("cache"), max_images }
    }

    fn names(paths: &[Registered]) -> String {
        paths.iter().filter_map(|path| path.path.rsplit('/').next()).collect::<Vec<_>>().join(" ")
    }

    fn whole(layers: &LayerCache, layer: &Layer) -> (PathBuf, FileEntry) {
        match layers.get(layer, ".image", Progress::Quiet) {
            Cached::Whole(image, entry) => (image, entry),
            other => panic!("{other:?}"),
        }
    }

    /// Plans a build and carries out the part that concerns the cache: returns the layers, each with a + if it was in the cache,
    /// and the rest.
    fn build(layers: &LayerCache, closure: &[Registered], packing: &Packing) -> Vec<String> {
        let (planned, rest) = layers.plan(closure, packing).unwrap();
        let mut said = Vec::new();
        for layer in &planned {
            let was_there = matches!(layers.get(layer, ".image", Progress::Quiet), Cached::Whole(..));
            if !was_there {
                let image = layers.directory.with_extension("image");
                fs::write(&image, names(&layer.paths)).unwrap();
                layers.put(layer, ".image", &image, &describe(&image, Progress::Quiet).unwrap()).unwrap();
                fs::remove_file(image).unwrap();
            }
            let (image, entry) = whole(layers, layer);
            assert_eq!(fs::read_to_string(image).unwrap(), names(&layer.paths));
            assert_eq!(entry.bytes, names(&layer.paths).len() as u64);
            said.push(format!("{}{}", if was_there { "+" } else { "" }, names(&layer.paths)));
        }
        said.push(names(&rest));
        said
    }

    #[test]
    fn unchanged_layers_are_taken_from_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let layers = cache(&directory, 3);
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
        // A path with another hash is another path, and each packing has its own layers.
        let mut fourth = third.clone();
        fourth[3].nar_hash = "sha256:other".into();
        assert_eq!(build(&layers, &fourth, &packing), ["+a b2", "c d", "etc2 top"]);
        let small = Packing { block_size: Some(4096), ..Packing::default() };
        assert_eq!(build(&layers, &first, &small), ["a b", "c d", "etc top"]);
        assert_eq!(build(&LayerCache { max_images: 1, ..layers.clone() }, &first, &packing), ["a b c d etc top"]);
    }

    #[test]
    fn a_damaged_layer_is_packed_again() {
        let directory = tempfile::tempdir().unwrap();
        let (layers, packing) = (cache(&directory, 3), Packing::default());
        let closure = [path("a", 100), path("b", 100), path("c", 100), path("d", 100), path("etc", 1)];
        build(&layers, &closure, &packing);
        let planned = || layers.plan(&closure, &packing).unwrap().0;
        let image = whole(&layers, &planned()[0]).0;
        let json = image.with_extension("json");
        let description = fs::read_to_string(&json).unwrap();
        assert_eq!(fs::read_to_string(&image).unwrap(), "a b");
        let changed = |from: &str, to: &str| {
            assert!(description.contains(from), "{description}");
            description.replacen(from, to, 1)
        };
        for (file, contents, expected) in [
            (&image, String::new(), "it has 0 bytes instead of 3"),
            (&image, "a b ".into(), "it has 4 bytes instead of 3"),
            (&image, "a c".into(), "its SHA-256 is "),
            (&json, "{".into(), "EOF while parsing"),
            (&json, changed("\"bytes\":3", "\"bytes\":4"), "it has 3 bytes instead of 4"),
            (&json, changed("\"sha256\":\"", "\"sha256\":\"0"), " instead of 0"),
            (&json, changed("/nix/store/b", "/nix/store/c"), "it describes other store paths"),
        ] {
            fs::write(file, &contents).unwrap();
            match layers.get(&planned()[0], ".image", Progress::Quiet) {
                Cached::Damaged(damaged, reason) => {
                    assert!(reason.contains(expected), "no {expected:?} in {reason}");
                    // The size of the image and its description differ: which of the two is wrong is not known.
                    assert!(damaged == *file || (damaged == image && file == &json), "{}", damaged.display());
                }
                other => panic!("{contents}: {other:?}"),
            }
            assert_eq!(build(&layers, &closure, &packing), ["a b", "+c d", "etc"], "{contents}");
            assert_eq!(fs::read_to_string(&image).unwrap(), "a b");
            assert_eq!(fs::read_to_string(&json).unwrap(), description);
        }
        fs::remove_file(&image).unwrap();
        assert!(matches!(layers.get(&planned()[0], ".image", Progress::Quiet), Cached::Damaged(..)));
        fs::remove_file(&json).unwrap();
        assert!(matches!(layers.get(&planned()[0], ".image", Progress::Quiet), Cached::Missing));
        assert_eq!(build(&layers, &closure, &packing), ["a b", "+c d", "etc"]);
    }

    #[test]
    fn paths_with_many_references_are_packed_with_the_small_ones() {
        let references = (0..1000).map(|number| format!("/nix/store/{number}")).collect();
        let system_path = Registered { references, ..path("system-path", 5) };
        let closure = [path("a", 800), path("b", 5), path("etc", 1), system_path];
        let (large, changing) = split(&closure, closure.to_vec());
        assert_eq!([names(&large), names(&changing)], ["a b", "etc system-path"]);
    }

    #[test]
    fn small_stores_have_no_layers() {
        let directory = tempfile::tempdir().unwrap();
        let layers = cache(&directory, 5);
        assert_eq!(build(&layers, &[path("a", 1), path("b", 2)], &Packing::default()), ["a b"]);
        assert_eq!(build(&layers, &[path("a", 5), path("b", 0)], &Packing::default()), ["a", "b"]);
    }
}
