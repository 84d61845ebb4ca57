//! One store in several images: the paths of each image, and the names of the images.

use crate::formats::registration::Registered;

/// The name of the image with this number, counted from 0: `nix-store.squashfs`, `nix-store-2.squashfs`.
#[must_use]
pub fn numbered(name: &str, number: usize) -> String {
    let (stem, suffix) = name.split_at(name.rfind('.').unwrap_or(name.len()));
    if number == 0 { name.into() } else { format!("{stem}-{}{suffix}", number + 1) }
}

/// Divides a closure into at most `count` groups of about the same size, none of them empty.
#[must_use]
pub fn divide(closure: &[Registered], count: usize) -> Vec<&[Registered]> {
    let size = |path: &Registered| path.nar_size.max(1);
    let each = (closure.iter().map(size).sum::<u64>() / count as u64).max(1);
    let mut before = 0;
    // A path on the border belongs to the group that has the larger half of it.
    let numbered: Vec<_> = closure
        .iter()
        .map(|path| {
            let middle = before + size(path) / 2;
            before += size(path);
            (middle / each).min(count as u64 - 1)
        })
        .collect();
    let mut rest = closure;
    let groups = numbered.chunk_by(|a, b| a == b).map(|group| {
        let (group, after) = rest.split_at(group.len());
        rest = after;
        group
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_several_images() {
        assert_eq!(
            [0, 1, 14].map(|number| numbered("a.b.erofs", number)),
            ["a.b.erofs", "a.b-2.erofs", "a.b-15.erofs"]
        );
        assert_eq!(numbered("store", 1), "store-2");
    }

    #[test]
    fn groups_of_a_closure() {
        let closure = |sizes: &[u64]| -> Vec<_> {
            let path =
                |size| Registered { path: String::new(), nar_hash: String::new(), nar_size: size, references: vec![] };
            sizes.iter().map(|size| path(*size)).collect()
        };
        for (sizes, count, expected) in [
            (&[1, 2, 3][..], 1, &[3][..]),
            (&[1, 1, 1, 1], 2, &[2, 2]),
            (&[9, 1, 1, 1], 2, &[1, 3]),
            (&[1, 1, 1, 9], 2, &[3, 1]),
            (&[5, 5, 5], 3, &[1, 1, 1]),
            (&[0, 0, 0], 3, &[1, 1, 1]),
            (&[7], 2, &[1]),
            (&[u64::MAX / 4, u64::MAX / 4], 2, &[1, 1]),
        ] {
            let closure = closure(sizes);
            let groups: Vec<_> = divide(&closure, count).into_iter().map(<[_]>::len).collect();
            assert_eq!(groups, expected, "{sizes:?}");
        }
    }
}
