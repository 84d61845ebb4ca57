//! The limits of the two tmpfs in which the running system keeps its changes: the root, and the writable layer of the store.

use crate::boot::kernel::memory::Memory;
use crate::formats::size;

/// Limits of a tmpfs, as its options (`man 5 tmpfs`).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// A number of bytes with `k`, `m` or `g`, or a part of the memory with `%`.
    pub size: Option<String>,
    /// A number of inodes, with `k`, `m` or `g`; 0 means no limit.
    pub inodes: Option<String>,
}

/// The memory that stays free for programs when both tmpfs are full, bytes, and a part of the whole memory that is added to it.
const RESERVE: u64 = 64 << 20;
const RESERVED_PART: u64 = 16;

/// The memory that the kernel needs for an inode of a tmpfs, bytes: `shmem_inode_info` and `dentry` (`/proc/slabinfo`). The limit for the
/// size does not include it.
const INODE: u64 = 1 << 10;

/// The least limit for the size, bytes. The boot itself needs some of it, and for a tmpfs 0 means no limit.
const LEAST: u64 = 8 << 20;

/// The bytes of contents for which the default allows an inode. A tree of nixpkgs has 2,500 to 3,000 of them for each.
const BYTES_PER_INODE: u64 = 2 << 10;

impl Limits {
    /// Completes the limits of the root and of the writable store layer. Together they leave room for programs: the system must stay
    /// usable when both are full. A limit from the command line stays as it is, and the other tmpfs gets the rest.
    pub fn complete(root: &mut Self, store: &mut Self, memory: &Memory) {
        let reserve = RESERVE + memory.total / RESERVED_PART;
        let budget = memory.available.saturating_sub(reserve).max(memory.available / 4);
        let given = [&*root, store].map(|limits| limits.bytes(memory.total).map(with_inodes));
        let least = budget / 8;
        let (of_root, of_store) = match given {
            [Some(root), None] => (0, budget.saturating_sub(root).max(least)),
            [None, Some(store)] => (budget.saturating_sub(store).max(least), 0),
            _ => (budget / 3, budget - budget / 3),
        };
        root.fill(of_root, memory.total);
        store.fill(of_store, memory.total);
        let allowed = [root, store].iter().filter_map(|limits| limits.bytes(memory.total)).fold(0, u64::saturating_add);
        if allowed > memory.available {
            log::warn!(
                "The root and the writable store layer may take {} MiB, and {} MiB of memory are left: the machine stops working when \
                 they are full; lower firn.root.size= or firn.rw-store.size=",
                allowed >> 20,
                memory.available >> 20
            );
        }
    }

    /// Sets the limits that are missing. With both limits reached, a tmpfs takes `share` bytes of the memory.
    fn fill(&mut self, share: u64, total: u64) {
        let contents = (share / (BYTES_PER_INODE + INODE) * BYTES_PER_INODE).max(LEAST);
        let bytes = self.bytes(total).unwrap_or(contents);
        self.size.get_or_insert_with(|| format!("{}k", bytes >> 10));
        self.inodes.get_or_insert_with(|| (bytes.max(LEAST) / BYTES_PER_INODE).to_string());
    }

    /// The limit for the size in bytes, if there is one, in a memory of `total` bytes.
    fn bytes(&self, total: u64) -> Option<u64> {
        let text = self.size.as_deref()?;
        size::parse(text).or_else(|| Some(total / 100 * size::percent(text)?))
    }

    /// The options of a tmpfs with these limits.
    #[must_use]
    pub fn options(&self) -> Vec<(&'static str, &str)> {
        let size = self.size.as_deref().map(|size| ("size", size));
        let inodes = self.inodes.as_deref().map(|inodes| ("nr_inodes", inodes));
        [Some(("mode", "0755")), size, inodes].into_iter().flatten().collect()
    }
}

/// The memory that this many bytes of contents take at most, with the inodes that belong to them.
fn with_inodes(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / BYTES_PER_INODE * INODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn completed(root: Option<&str>, store: Option<&str>, total: u64, available: u64) -> [(u64, u64); 2] {
        let limits = |size: Option<&str>| Limits { size: size.map(Into::into), inodes: None };
        let (mut root, mut store) = (limits(root), limits(store));
        Limits::complete(&mut root, &mut store, &Memory { total: total * MIB, available: available * MIB });
        [&root, &store].map(|limits| {
            let inodes = size::parse(limits.inodes.as_ref().unwrap()).unwrap();
            (limits.bytes(total * MIB).unwrap() / MIB, inodes / 1000)
        })
    }

    #[test]
    fn a_8_the_limits_follow_from_the_memory_that_is_left() {
        for (root, store, total, available, expected) in [
            (None, None, 480, 370, [(61, 31), (122, 62)]),
            (None, None, 64 << 10, 60 << 10, [(12_728, 6_517), (25_457, 13_034)]),
            (Some("20%"), None, 480, 370, [(95, 49), (88, 45)]),
            (None, Some("100m"), 480, 370, [(84, 43), (100, 51)]),
            (Some("80%"), None, 480, 370, [(383, 196), (23, 11)]),
            (Some("1g"), Some("2g"), 480, 370, [(1024, 524), (2048, 1048)]),
            (None, None, 240, 60, [(8, 4), (8, 4)]),
            (None, None, 0, 0, [(8, 4), (8, 4)]),
        ] {
            assert_eq!(completed(root, store, total, available), expected, "{root:?} {store:?} {total} {available}");
        }
    }

    #[test]
    fn a_8_full_limits_leave_the_reserve() {
        for total in [200, 256, 512, 768, 4096, 1 << 20] {
            for available in [total / 4, total / 2, total * 9 / 10] {
                let mut limits = [Limits::default(), Limits::default()];
                let [root, store] = &mut limits;
                Limits::complete(root, store, &Memory { total: total * MIB, available: available * MIB });
                let taken: u64 = limits.iter().map(|limits| with_inodes(limits.bytes(0).unwrap())).sum();
                assert!(
                    taken <= (available * MIB).saturating_sub(RESERVE).max(2 * with_inodes(LEAST)),
                    "{total} {available}"
                );
            }
        }
    }

    #[test]
    fn limits_are_options() {
        let limits = Limits { size: Some("4g".into()), inodes: Some("0".into()) };
        assert_eq!(limits.options(), [("mode", "0755"), ("size", "4g"), ("nr_inodes", "0")]);
        assert_eq!(Limits::default().options(), [("mode", "0755")]);
    }
}
