//! Kernel images for x86: their release.

use crate::formats::magic::FileKind;

/// As many bytes of the start of a kernel image as can hold its release: the header's pointer has 16 bits.
pub const START: u64 = 0x200 + (1 << 16) + 4096;

/// The first word of the version string that the header of an x86 kernel image points to (`kernel_version`,
/// Documentation/arch/x86/boot.rst).
#[must_use]
pub fn release(image: &[u8]) -> Option<String> {
    if !FileKind::Kernel.is_kind_of(image) {
        return None;
    }
    let pointer = u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?);
    let text = image.get(0x200 + usize::from(pointer)..)?;
    let text = text.get(..text.iter().position(|byte| *byte == 0)?)?;
    std::str::from_utf8(text).ok()?.split(' ').next().filter(|word| !word.is_empty()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn release_in_the_image() {
        let mut image = vec![0; 0x400];
        assert_eq!(release(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        assert_eq!(release(&image), None);
        image[0x300..0x311].copy_from_slice(b"6.1.0-49-cloud (d");
        assert_eq!(release(&image).as_deref(), Some("6.1.0-49-cloud"));
        image[0x20e..0x210].copy_from_slice(&0xffff_u16.to_le_bytes());
        assert_eq!(release(&image), None);
        assert_eq!(release(b"short"), None);
    }
}
