//! A function for each parser of bytes that others wrote. It takes any bytes, and panics if the parser does or if the result is wrong.
//!
//! `fuzz/run` gives them to libFuzzer; the test here gives them the seeds and changed seeds, so that they stay true.

mod kernel;
mod program;
mod ramdisk;
mod store;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// The names of the targets, under which their seeds are in `fuzz/seeds`, and their functions.
pub const TARGETS: [(&str, Target); 14] = [
    ("bootspec", program::bootspec),
    ("cmdline", kernel::cmdline),
    ("disk", store::disk),
    ("erofs", store::superblock),
    ("kernel", kernel::image),
    ("line", kernel::line),
    ("manifest", program::manifest),
    ("modules", kernel::modules),
    ("pe", program::pe),
    ("plan", program::plan),
    ("ramdisk", ramdisk::read),
    ("registration", store::registration),
    ("squashfs", store::superblock),
    ("unpack", ramdisk::unpack),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// A generator of numbers that are not predictable enough to miss things (xorshift64).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            for (left, shift) in [(true, 13), (false, 7), (true, 17)] {
                self.0 ^= if left { self.0 << shift } else { self.0 >> shift };
            }
            usize::try_from(self.0 % limit.max(1) as u64).unwrap()
        }
    }

    /// Changes a byte, cuts, doubles a part or writes a large number, a few times.
    fn changed(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=numbers.below(4) {
            let (place, other) = (numbers.below(bytes.len()), numbers.below(bytes.len()));
            match numbers.below(5) {
                _ if bytes.is_empty() => bytes.push(b'0'),
                0 => bytes[place] ^= 1 << numbers.below(8),
                1 => bytes[place] = *b"\0\xff0/\"\n".get(numbers.below(6)).unwrap(),
                2 => bytes.truncate(place),
                3 => {
                    let part = bytes[place.min(other)..place.max(other)].to_vec();
                    bytes.splice(other..other, part);
                    bytes.truncate(64 << 10);
                }
                _ => bytes.iter_mut().skip(place).take(4).for_each(|byte| *byte = 0xff),
            }
        }
        bytes
    }

    #[test]
    fn c_15_every_target_takes_its_seeds_and_changed_seeds() {
        for (name, target) in TARGETS {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
            let mut numbers = Numbers(0x5eed);
            let mut seeds = 0;
            for entry in fs::read_dir(&directory).expect(name) {
                let seed = fs::read(entry.unwrap().path()).unwrap();
                target(&seed);
                for _ in 0..300 {
                    target(&changed(&seed, &mut numbers));
                }
                seeds += 1;
            }
            assert!(seeds > 0, "{name}");
            target(b"");
        }
    }
}
