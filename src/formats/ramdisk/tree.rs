//! The files that the kernel makes of the members of a ramdisk: a model of the root file system while it is unpacked.
//!
//! It follows `do_name`, `do_symlink`, `maybe_link` and `clean_path` in init/initramfs.c, and the resolution of paths in fs/namei.c
//! (`man 7 path_resolution`), of Linux 6.12. No contents are kept.

mod walk;

use crate::formats::newc::{Fate, Member, MemberKind};
use crate::formats::printable::printable;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use walk::without_slash;

/// The most memory for files and their names, bytes. In the kernel they take several times as much.
const MOST_MEMORY: usize = 1 << 30;

/// The most directories and links on the ways to all files. A real ramdisk has some dozens for each file; a hostile one of a few
/// kilobytes can have billions.
const MOST_STEPS: u64 = 1 << 27;

/// The memory of a file without its names, bytes.
const NODE_MEMORY: usize = 256;

/// The most symbolic links on the way to a file (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// The longest name in a directory, bytes (`NAME_MAX`).
const LONGEST_PART: usize = 255;

/// The longest target of a symbolic link, bytes (`PATH_MAX` with its NUL).
const LONGEST_TARGET: usize = 4095;

/// The number of an inode, and the major and minor number of its device.
type Identity = (u32, u32, u32);

const ROOT: usize = 0;

/// The files.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// The file of each name in each directory.
    names: HashMap<(usize, Vec<u8>), usize>,
    /// The first path of each file with several names in the archive, by type and identity (`find_link`).
    links: HashMap<(MemberKind, Identity), Vec<u8>>,
    /// Whether files are there that firn does not know.
    unknown: bool,
    /// The memory of all of it, bytes.
    memory: usize,
    /// The number of directories and links on the ways that were followed.
    steps: u64,
}

/// A file.
#[derive(Debug)]
struct Node {
    kind: MemberKind,
    target: Vec<u8>,
    device: (u32, u32),
    /// Of a directory: the one above it and its name there.
    above: (usize, Vec<u8>),
    /// The number of names in a directory.
    names: usize,
    /// The number of the member that has the contents.
    contents: usize,
    /// Of a file: type and permission bits.
    mode: u32,
}

/// A file in the finished tree.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its type.
    pub kind: MemberKind,
    /// The target of a symbolic link.
    pub target: PathBuf,
    /// The number of the member that has the contents, from 0.
    pub contents: usize,
    /// Of a file: type and permission bits.
    pub mode: u32,
}

/// The path of a file that exists now, or the reason why the kernel makes none.
type Made = Result<PathBuf, String>;

impl Default for Tree {
    /// The files of the ramdisk that is built into a kernel (`usr/default_cpio_list`).
    fn default() -> Self {
        let root = Node::new(MemberKind::Directory);
        let mut tree = Self {
            nodes: vec![root],
            names: HashMap::new(),
            links: HashMap::new(),
            unknown: false,
            memory: 0,
            steps: 0,
        };
        let directory = tree.add(ROOT, b"dev", Node::new(MemberKind::Directory));
        tree.add(directory, b"console", Node { device: (5, 1), ..Node::new(MemberKind::CharacterDevice) });
        tree.add(ROOT, b"root", Node::new(MemberKind::Directory));
        tree
    }
}

impl Tree {
    /// From now on files may be there that firn does not know: no directory is missing.
    pub fn has_unknown_files(&mut self) {
        self.unknown = true;
    }

    /// The reason why no more files are made: they take too much memory or time.
    #[must_use]
    pub fn is_too_large(&self) -> Option<String> {
        if self.memory > MOST_MEMORY {
            return Some(format!(
                "the names of its files take more than the {MOST_MEMORY} bytes of memory that firn gives to them"
            ));
        }
        (self.steps > MOST_STEPS).then(|| {
            format!("the ways to its files have more than the {MOST_STEPS} directories and links that firn follows")
        })
    }

    /// The end of an archive: the kernel forgets which files have several names.
    pub fn forget_links(&mut self) {
        self.links.clear();
    }

    /// The file at a path. A symbolic link at its end is not followed.
    pub fn find(&mut self, path: &Path) -> Option<Entry> {
        let number = self.walk(path.as_os_str().as_bytes(), false).ok()?.node?;
        Some(self.entry(number))
    }

    /// The file at a path, behind all symbolic links.
    pub fn follow(&mut self, path: &Path) -> Option<Entry> {
        let number = self.walk(path.as_os_str().as_bytes(), true).ok()?.node?;
        Some(self.entry(number))
    }

    fn entry(&self, number: usize) -> Entry {
        let node = self.node(number);
        Entry { kind: node.kind, target: path_of(&node.target), contents: node.contents, mode: node.mode }
    }

    /// Makes the file of a member with this name, the member of this number. The device number is the one that the file has.
    pub fn make(&mut self, name: &[u8], member: &mut Member, number: usize) -> Fate {
        let mut fate = Fate::default();
        let made = match member.kind {
            MemberKind::File => self.file(name, member, number, &mut fate),
            MemberKind::Directory => self.directory(name, &mut fate),
            MemberKind::Symlink => self.symlink(name, member, &mut fate),
            MemberKind::Unknown => {
                fate.removes = self.clean(name, None);
                Err(format!("mode {:o} has no type of file that the kernel makes", member.mode))
            }
            _ => self.device(name, member, &mut fate),
        };
        match made {
            Ok(place) => fate.place = Some(place),
            Err(reason) => fate.dropped = Some(with_removed(reason, fate.removes.as_deref())),
        }
        fate
    }

    fn file(&mut self, name: &[u8], member: &Member, number: usize, fate: &mut Fate) -> Made {
        fate.removes = self.clean(name, Some(MemberKind::File));
        let linked = self.link(name, member, fate)?;
        if name.ends_with(b"/") {
            return Err("it is a file and its name ends with a slash".into());
        }
        let found = self.walk(name, true)?;
        let node = match (found.node, &found.name) {
            (Some(node), _) if self.node(node).kind == MemberKind::File => node,
            (Some(node), _) => return Err(in_the_way(self.node(node).kind)),
            (None, Some(name)) => self.add(found.directory, name, Node::new(MemberKind::File)),
            (None, None) => return Err("it has no name".into()),
        };
        if let Some(node) = self.nodes.get_mut(node) {
            node.mode = member.mode;
            if !linked || member.bytes > 0 {
                node.contents = number;
            }
        }
        Ok(self.place(&found))
    }

    fn directory(&mut self, name: &[u8], fate: &mut Fate) -> Made {
        fate.removes = self.clean(name, Some(MemberKind::Directory));
        let found = self.walk(name, false)?;
        match (found.node, &found.name) {
            (Some(node), _) if self.node(node).kind == MemberKind::Directory => {}
            (Some(node), _) => return Err(in_the_way(self.node(node).kind)),
            (None, Some(part)) => {
                if self.walk(without_slash(name), false)?.node.is_some() {
                    return Err(in_the_way(MemberKind::Symlink));
                }
                self.add(found.directory, part, Node::new(MemberKind::Directory));
            }
            (None, None) => return Err("it has no name".into()),
        }
        Ok(self.place(&found))
    }

    fn symlink(&mut self, name: &[u8], member: &Member, fate: &mut Fate) -> Made {
        fate.removes = self.clean(name, None);
        let target = member.target.as_deref().unwrap_or(Path::new("")).as_os_str().as_bytes();
        match target.len() {
            0..=LONGEST_TARGET => {}
            length => return Err(format!("its target has {length} bytes and the kernel accepts {LONGEST_TARGET}")),
        }
        self.new_name(name, Node { target: target.into(), ..Node::new(MemberKind::Symlink) })
    }

    fn device(&mut self, name: &[u8], member: &mut Member, fate: &mut Fate) -> Made {
        fate.removes = self.clean(name, Some(member.kind));
        if self.link(name, member, fate)? {
            return self.walk(name, false).map(|found| self.place(&found));
        }
        let found = self.walk(name, false)?;
        match found.node.map(|node| self.node(node)) {
            // `mknod` fails, and the mode and the owner are changed all the same.
            Some(node) if node.kind == member.kind => {
                member.device = node.device;
                Ok(self.place(&found))
            }
            _ => self.new_name(name, Node { device: member.device, ..Node::new(member.kind) }),
        }
    }

    /// Makes a file that must not exist.
    fn new_name(&mut self, name: &[u8], node: Node) -> Made {
        let found = self.walk(without_slash(name), false)?;
        match (found.node, &found.name) {
            (Some(node), _) => Err(in_the_way(self.node(node).kind)),
            (None, _) if name.ends_with(b"/") => Err("it is no directory and its name ends with a slash".into()),
            (None, None) => Err("it has no name".into()),
            (None, Some(part)) => {
                self.add(found.directory, part, node);
                Ok(self.place(&found))
            }
        }
    }

    /// Makes a second name of a file that the archive has under another name before (`maybe_link`). False if it has none.
    fn link(&mut self, name: &[u8], member: &Member, fate: &mut Fate) -> Result<bool, String> {
        if member.links < 2 {
            return Ok(false);
        }
        let key = (member.kind, member.inode);
        let Some(first) = self.links.get(&key).cloned() else {
            self.memory += NODE_MEMORY + name.len();
            self.links.insert(key, name.into());
            return Ok(false);
        };
        if let Some(removed) = self.clean(name, None) {
            fate.removes = Some(removed);
        }
        let gone = || format!("it is a link to {}, which is gone", printable(&path_of(&first)));
        let old = self.walk(&first, false).map_err(|_| gone())?;
        let node = old.node.ok_or_else(gone)?;
        if self.node(node).kind == MemberKind::Directory {
            return Err(format!("it is a link to {}, which is a directory", printable(&path_of(&first))));
        }
        let new = self.walk(without_slash(name), false)?;
        match (new.node, &new.name) {
            (None, Some(part)) if !name.ends_with(b"/") => {
                self.memory += NODE_MEMORY + part.len();
                self.names.insert((new.directory, part.clone()), node);
                self.count(new.directory, 1);
            }
            (Some(node), _) => return Err(in_the_way(self.node(node).kind)),
            _ => return Err("it is no directory and its name ends with a slash".into()),
        }
        fate.link = Some((self.place(&old), self.place(&new)));
        Ok(true)
    }

    /// Removes a file of another type at a path (`clean_path`). Returns its path. A directory with files stays.
    fn clean(&mut self, name: &[u8], kind: Option<MemberKind>) -> Option<PathBuf> {
        let node = self.walk(name, false).ok()?.node?;
        if kind == Some(self.node(node).kind) {
            return None;
        }
        // A slash at the end leads through a symbolic link, which is not removed.
        let found = self.walk(without_slash(name), false).ok().filter(|found| found.node == Some(node))?;
        let part = found.name.clone()?;
        let removable = self.node(node).kind != MemberKind::Directory || self.node(node).names == 0;
        if !removable {
            return None;
        }
        self.names.remove(&(found.directory, part));
        self.count(found.directory, -1);
        Some(self.place(&found))
    }

    fn add(&mut self, directory: usize, name: &[u8], node: Node) -> usize {
        let number = self.nodes.len();
        self.memory += NODE_MEMORY + 2 * name.len() + node.target.len();
        self.nodes.push(Node { above: (directory, name.into()), ..node });
        self.names.insert((directory, name.into()), number);
        self.count(directory, 1);
        number
    }

    fn count(&mut self, directory: usize, change: isize) {
        if let Some(node) = self.nodes.get_mut(directory) {
            node.names = node.names.saturating_add_signed(change);
        }
    }

    #[expect(clippy::indexing_slicing, reason = "numbers of nodes come from this list, and no node leaves it")]
    fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }
}

impl Node {
    fn new(kind: MemberKind) -> Self {
        Self { kind, target: Vec::new(), device: (0, 0), above: (ROOT, Vec::new()), names: 0, contents: 0, mode: 0 }
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

fn in_the_way(kind: MemberKind) -> String {
    match kind {
        MemberKind::Directory => "a directory with files is in its place",
        MemberKind::Symlink => "a symbolic link is in its place",
        _ => "a file of another type is in its place",
    }
    .into()
}

fn with_removed(reason: String, removed: Option<&Path>) -> String {
    match removed {
        Some(removed) => format!("{reason}; the kernel removes the earlier {} for it", printable(removed)),
        None => reason,
    }
}
