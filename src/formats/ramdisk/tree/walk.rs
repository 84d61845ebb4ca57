//! Paths in the tree, as fs/namei.c of Linux 6.12 follows them (`man 7 path_resolution`).

use crate::formats::newc::MemberKind;
use crate::formats::printable::printable;
use crate::formats::ramdisk::tree::{LONGEST_PART, MOST_LINKS, Node, ROOT, Tree};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The end of a path.
pub(super) struct Found {
    pub directory: usize,
    /// The name in the directory; none for the root, `.` and `..`.
    pub name: Option<Vec<u8>>,
    pub node: Option<usize>,
}

impl Tree {
    /// Follows a path, from the root. Symbolic links on the way are followed, at the end only with `follow` or a slash there.
    pub(super) fn walk(&mut self, path: &[u8], follow: bool) -> Result<Found, String> {
        let slash = path.ends_with(b"/");
        let mut parts = parts_reversed(path);
        let (mut at, mut links) = (ROOT, 0);
        let mut found = Self::of_directory(ROOT);
        while let Some(part) = parts.pop() {
            self.steps += 1;
            if part == b"." || part == b".." {
                at = if part == b"." { at } else { self.node(at).above.0 };
                found = Self::of_directory(at);
                continue;
            }
            if part.len() > LONGEST_PART {
                return Err(format!(
                    "a part of its name has {} bytes and the kernel accepts {LONGEST_PART}",
                    part.len()
                ));
            }
            let key = (at, part);
            let node = self.names.get(&key).copied();
            found = Found { directory: at, name: Some(key.1), node };
            let Some(node) = node else {
                if parts.is_empty() {
                    break;
                }
                if !self.unknown {
                    return Err(format!("its directory {} does not exist", printable(&self.place(&found))));
                }
                at = self.add(at, found.name.as_deref().unwrap_or_default(), Node::new(MemberKind::Directory));
                continue;
            };
            match self.node(node).kind {
                MemberKind::Directory => at = node,
                MemberKind::Symlink if follow || slash || !parts.is_empty() => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(format!("more than {MOST_LINKS} symbolic links are on the way to it"));
                    }
                    let target = self.node(node).target.clone();
                    at = if target.starts_with(b"/") { ROOT } else { at };
                    found = Self::of_directory(at);
                    parts.extend(parts_reversed(&target));
                }
                _ if parts.is_empty() && !slash => {}
                _ => return Err(format!("{} is in the way and is no directory", printable(&self.place(&found)))),
            }
        }
        Ok(found)
    }

    fn of_directory(node: usize) -> Found {
        // The kernel cannot remove or make it by the names "." and "..", so it has none here.
        Found { directory: node, name: None, node: Some(node) }
    }

    /// The absolute path of the end of a path.
    pub(super) fn place(&self, found: &Found) -> PathBuf {
        let (mut directory, mut parts) = match (&found.name, found.node) {
            (Some(name), _) => (found.directory, vec![name.as_slice()]),
            (None, node) => (node.unwrap_or(ROOT), Vec::new()),
        };
        while directory != ROOT {
            let (above, name) = &self.node(directory).above;
            parts.push(name);
            directory = *above;
        }
        let mut path = PathBuf::from("/");
        path.extend(parts.iter().rev().map(|part| OsStr::from_bytes(part)));
        path
    }
}

fn parts_reversed(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).rev().map(<[u8]>::to_vec).collect()
}

/// A name without the slashes at its end.
pub(super) fn without_slash(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    name.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::ramdisk::tree::MOST_STEPS;

    #[test]
    fn c_7_long_ways_of_links_end() {
        let mut tree = Tree::default();
        // Each link leads to the one before it; "./" is no way, and takes as long as one.
        let target = [b"./".repeat(2000), b"link".to_vec()].concat();
        tree.add(ROOT, b"link", Node { target: target.clone(), ..Node::new(MemberKind::Symlink) });
        assert_eq!(tree.is_too_large(), None);
        assert!(tree.walk(b"/link", true).err().unwrap().contains("more than 40 symbolic links"));
        assert_eq!(tree.steps, 1 + 40 * 2001);
        tree.steps = MOST_STEPS;
        assert_eq!(tree.is_too_large(), None);
        drop(tree.walk(b"/link", false));
        assert!(tree.is_too_large().unwrap().contains("directories and links"));
    }
}
