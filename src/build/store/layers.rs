//! Store images that are kept from one build to the next. Most of a closure is the same in the next build: its large and stable
//! paths are packed as layers, which lie in a cache directory under a name that follows from their content, and only the rest
//! is packed again.

use crate::build::store::cache::OpenCache;
use crate::build::store::divide::divide;
use crate::build::store::layer::{Layer, identity};
use crate::formats::registration::Registered;
use anyhow::Result;
use std::path::PathBuf;

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

/// Divides a closure into layers and the rest, which is packed anew. There are at most `max_images`, the rest included.
///
/// The layers are those of the cache whose paths are all in the closure; and, while the limit of images allows more, new
/// layers of the large and stable paths.
///
/// # Errors
///
/// A cache that cannot be read.
pub fn plan(cache: &OpenCache, closure: &[Registered], max_images: usize) -> Result<(Vec<Layer>, Vec<Registered>)> {
    let mut left = closure.to_vec();
    let mut layers = Vec::new();
    let mut known = cache.known()?;
    known.sort_by_cached_key(|paths| {
        let bytes: u64 = closure.iter().filter(|path| paths.contains(&identity(path))).map(|path| path.nar_size).sum();
        let mut sorted: Vec<_> = paths.iter().cloned().collect();
        sorted.sort();
        (std::cmp::Reverse(bytes), sorted)
    });
    for cached in known {
        let found = left.iter().filter(|path| cached.contains(&identity(path))).count();
        if found == cached.len() && layers.len() + 1 < max_images {
            let (paths, rest) = left.into_iter().partition(|path| cached.contains(&identity(path)));
            left = rest;
            layers.push(Layer::of(paths, cache.recipe()));
        }
    }
    let (large, changing) = split(closure, left);
    let room = max_images.saturating_sub(1 + layers.len());
    let bytes: u64 = large.iter().map(|path| path.nar_size).sum();
    let count = room.min(usize::try_from(bytes / SMALLEST_LAYER)?);
    if count == 0 {
        let mut rest = [large, changing].concat();
        rest.sort();
        return Ok((layers, rest));
    }
    layers.extend(divide(&large, count).into_iter().map(|paths| Layer::of(paths.to_vec(), cache.recipe())));
    // The order does not depend on which layers are in the cache.
    layers.sort_by_cached_key(|layer| {
        let bytes: u64 = layer.paths.iter().map(|path| path.nar_size).sum();
        (std::cmp::Reverse(bytes), layer.paths.first().map(identity))
    });
    Ok((layers, changing))
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
mod tests;
