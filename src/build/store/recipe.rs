//! The recipe of a store image: everything that decides its bytes, except the store paths in it.

use crate::build::store::packing::{Format, Packing};
use crate::build::store::{erofs, squashfs};
use anyhow::Result;

/// A number that grows with each change of what firn packs and how, beyond the options of the tools. A layer in a cache that was
/// packed by another recipe is not used.
const VERSION: u32 = 1;

/// The recipe of images that are packed like this on this machine, as a text: the version of the tool and its options.
///
/// # Errors
///
/// A tool that is missing on this machine.
pub fn of(packing: &Packing) -> Result<String> {
    let (tool, options) = match packing.format {
        Format::Squashfs => (squashfs::version()?, squashfs::options(packing)),
        Format::Erofs => (erofs::version()?, erofs::options(packing)),
    };
    Ok(format!("firn {VERSION}\n{tool}\n{}", options.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_2_a_recipe_has_the_tool_and_all_of_its_options() {
        let packing = Packing::default();
        let recipe = of(&packing).unwrap();
        for words in ["firn 1\nmksquashfs version 4.", "-no-xattrs", "-all-root", "-b\n131072", "zstd"] {
            assert!(recipe.contains(words), "no {words:?} in {recipe}");
        }
        // The number of processors changes nothing in the image.
        assert!(!recipe.contains("-processors") && recipe.lines().count() > 5, "{recipe}");
        let erofs = of(&Packing { format: Format::Erofs, ..packing.clone() }).unwrap();
        for words in ["firn 1\nmkfs.erofs 1.", "--all-root", "-zlz4hc,12", "-C65536"] {
            assert!(erofs.contains(words), "no {words:?} in {erofs}");
        }
        for other in [
            Packing { block_size: Some(4096), ..packing.clone() },
            Packing { compression: "gzip".parse().ok(), ..packing.clone() },
        ] {
            assert_ne!(of(&other).unwrap(), recipe);
        }
        // No part of the image.
        assert_eq!(of(&Packing { max_image: 1, ..packing }).unwrap(), recipe);
    }
}
