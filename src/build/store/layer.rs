//! A layer: store paths that are packed as one image, and its name in the cache.

use crate::formats::digest::sha256;
use crate::formats::registration::Registered;

/// A layer that is in the cache, or that will be.
#[derive(Debug)]
pub struct Layer {
    /// Its store paths, sorted.
    pub paths: Vec<Registered>,
    /// Its name in the cache; it follows from the paths and from how they are packed.
    pub key: String,
}

/// A store path and the hash of its NAR: two paths with the same identity have the same content.
pub type Identity = (String, String);

impl Layer {
    /// A layer of these paths, packed by a recipe.
    #[must_use]
    pub fn of(paths: Vec<Registered>, recipe: &str) -> Self {
        let identities: Vec<_> = paths.iter().map(identity).collect();
        Self { key: key(recipe, &identities), paths }
    }

    /// The identities of its paths.
    #[must_use]
    pub fn identities(&self) -> Vec<Identity> {
        self.paths.iter().map(identity).collect()
    }
}

/// The name of a layer in the cache: a part that follows from the recipe, and one that follows from the paths.
#[must_use]
pub fn key(recipe: &str, paths: &[Identity]) -> String {
    let text: Vec<_> = paths.iter().map(|(path, nar_hash)| format!("{path} {nar_hash}")).collect();
    format!("{}{}", prefix(recipe), hash(&text.join("\n")))
}

/// The beginning of the names of all layers that are packed by one recipe.
#[must_use]
pub fn prefix(recipe: &str) -> String {
    format!("{}-", hash(recipe))
}

fn hash(text: &str) -> String {
    let (_, digits) = sha256(text.as_bytes()).unwrap_or_default();
    digits.chars().take(32).collect()
}

/// The identity of a path.
#[must_use]
pub fn identity(path: &Registered) -> Identity {
    (path.path.clone(), path.nar_hash.clone())
}
