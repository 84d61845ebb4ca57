//! Zero copy: the small ramdisk that makes the kernel leave the store images where the boot loader puts them, and the word for it.

use crate::contract::parameters::RETAIN;
use crate::contract::place::mark;
use crate::contract::plan::Image;
use crate::formats::cpio::{Node, Tree};
use crate::formats::kernel_line::KernelLine;
use crate::formats::newc::PAGE;
use anyhow::Result;
use std::path::Path;

/// An archive with the mark of each image. It has whole pages, so that the images in the ramdisk behind it begin on pages, too.
///
/// # Errors
///
/// None in practice: it is small.
pub fn archive(images: &[Image]) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    for image in images {
        let mark = mark(Path::new(&image.path));
        tree.add(&mark.to_string_lossy(), Node::File { mode: 0o444, contents: Vec::new() });
    }
    let mut archive = Vec::new();
    tree.write(&mut archive)?;
    archive.resize(archive.len().next_multiple_of(usize::try_from(PAGE)?), 0);
    Ok(archive)
}

/// A command line with the word that keeps the ramdisk in memory. It comes first, where nothing cuts it off.
///
/// # Errors
///
/// None in practice: the word needs no quotes.
pub fn cmdline(line: KernelLine) -> Result<KernelLine> {
    if line.for_kernel().iter().any(|word| word == RETAIN) {
        return Ok(line);
    }
    let mut whole = KernelLine::of_words(&[RETAIN])?;
    whole.append(line);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::ramdisk;
    use std::io::Cursor;

    #[test]
    fn d_1_the_word_is_added_once() {
        for (text, expected) in [
            ("init=/x quiet -- a", "retain_initrd init=/x quiet -- a"),
            ("init=/x retain_initrd", "init=/x retain_initrd"),
            ("-- retain_initrd", "retain_initrd -- retain_initrd"),
        ] {
            assert_eq!(cmdline(KernelLine::of_text(text).unwrap()).unwrap().to_string(), expected);
        }
    }

    /// The kernel makes no file of a marked image, no matter how it gets into the ramdisk, and all other files.
    #[test]
    fn d_1_the_kernel_leaves_marked_images_where_they_are() {
        let image = |path: &str| Image { path: path.into(), bytes: 1, sha256: String::new() };
        let mut bytes = archive(&[image("/a.squashfs"), image("/b.squashfs")]).unwrap();
        assert_eq!(bytes.len() % 4096, 0);
        let mut tree = Tree::default();
        for name in ["/a.squashfs", "/b.squashfs", "/c.squashfs", "/init"] {
            tree.add(name, Node::File { mode: 0o444, contents: b"1".to_vec() });
        }
        tree.write(&mut bytes).unwrap();
        let mut made = Vec::new();
        let contents = ramdisk::read(Cursor::new(bytes), &mut |member, _| {
            made.extend(member.fate.place.clone());
            Ok(())
        });
        contents.unwrap();
        let made: Vec<_> = made.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            made,
            ["/a.squashfs", "/a.squashfs/zero-copy", "/b.squashfs", "/b.squashfs/zero-copy", "/c.squashfs", "/init"]
        );
    }
}
