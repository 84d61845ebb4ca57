//! How far the new root is mounted.

/// The complete mounts of the new root, which the next attempt uses again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// Nothing, or only a part of the store.
    #[default]
    Nothing,
    /// The root with its store.
    Store,
    /// The same, and the overlay for `/etc`.
    StoreAndEtc,
}
