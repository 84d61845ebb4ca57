//! Messages on store images that are missing, incomplete or from another build.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::kernel::command_line;
use crate::boot::kernel::memory;
use crate::boot::kernel::release::kernel_release;
use crate::contract::parameters::{RAMFS, RETAIN};
use crate::contract::place::{INITRD, ZERO_COPY};
use crate::contract::plan::MAX_UNPACKED;
use crate::formats::cmdline::CommandLine;

/// The place of the kernel command line for each boot loader. A missing word is added there.
const WHERE: &str = "the line of the boot loader that names the kernel (iPXE: kernel, in netboot.ipxe; GRUB: linux; systemd-boot: options; \
    pixiecore: --cmdline; Matchbox: args)";

/// The likely reasons why an unpacked image of `bytes` bytes, or a part of it, is missing.
pub fn incomplete(bytes: u64) -> String {
    let large = if bytes > MAX_UNPACKED { ", or it cannot unpack a file of 2 GiB or more" } else { "" };
    format!(
        "the boot loader loaded only a part of the ramdisk, or the kernel had too little memory to unpack it{large} (its log then has \
         \"Initramfs unpacking failed\"): check the ramdisk file and the download, or give the machine more memory{}; {}",
        without_ramfs(&command_line::now()),
        memory::summary(Some(memory::needed(bytes, false)))
    )
}

/// The advice to use all of the memory, for a command line that lets the kernel unpack the ramdisk into only a half of it.
fn without_ramfs(cmdline: &CommandLine) -> String {
    if cmdline.iter().any(|word| word == ("rootfstype", Some("ramfs"))) {
        return String::new();
    }
    format!(
        ", or add {RAMFS} to {WHERE}: without it the kernel unpacks into at most half of the memory that the ramdisk leaves free"
    )
}

/// The reason why an image is nowhere. `marked`: whether the ramdisk has its mark; `retained`: the size of the ramdisk in memory, bytes,
/// if the kernel keeps it.
pub fn missing(image: &ExpectedImage, marked: bool, retained: Option<u64>) -> String {
    let path = &image.path;
    match (retained, marked, image.bytes) {
        (Some(size), _, _) => format!(
            "there is no store image {path}, neither unpacked nor in the {size} bytes of ramdisk in memory: give the machine the \
             whole ramdisk, or the image as a second ramdisk"
        ),
        (None, true, _) => format!(
            "the store image {path} is missing: {ZERO_COPY} was loaded, so the kernel did not unpack the image, and there is no {INITRD}: \
             {}; {}",
            not_retained(&command_line::now()),
            memory::summary(None)
        ),
        (None, false, Some(bytes)) => format!("there is no store image {path} in the ramdisk: {}", incomplete(bytes)),
        (None, false, None) => {
            format!("there is no store image {path} in the ramdisk: add it, or name another path with firn.store=")
        }
    }
}

/// The reason why the kernel keeps no ramdisk, and the next step.
fn not_retained(cmdline: &CommandLine) -> String {
    if cmdline.iter().any(|word| word == (RETAIN, None)) {
        let release = kernel_release().unwrap_or_default();
        return format!(
            "this kernel, {release}, does not keep the ramdisk in memory; boot without {ZERO_COPY}, or with Linux 6.8 or newer"
        );
    }
    format!("the kernel command line lacks {RETAIN}; add it to {WHERE}, or boot without {ZERO_COPY}")
}

/// The end of a message about an image with another size than in the plan.
pub fn of_another_build(expected: u64) -> String {
    format!(
        "the plan is for an image of {expected} bytes: they are from different builds; use the ramdisk and the image of one build"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d_1_a_missing_word_is_named_with_the_place_to_put_it() {
        let line = |text: &str| CommandLine::parse(text.as_bytes());
        assert_eq!(without_ramfs(&line("quiet rootfstype=ramfs")), "");
        for words in ["quiet", "rootfstype=tmpfs", "rootfstype"] {
            let advice = without_ramfs(&line(words));
            assert!(advice.contains("add rootfstype=ramfs to the line") && advice.contains("netboot.ipxe"), "{advice}");
        }
        let lacks = not_retained(&line("init=/x"));
        assert!(lacks.contains("lacks retain_initrd; add it to the line") && lacks.contains("netboot.ipxe"), "{lacks}");
        assert!(not_retained(&line("retain_initrd")).contains("does not keep the ramdisk"));
        for (bytes, marked, retained, expected) in [
            (Some(1), false, None, "there is no store image /a in the ramdisk: the boot loader loaded only a part"),
            (None, false, None, "name another path with firn.store="),
            (None, true, None, "/a is missing: zero-copy.cpio was loaded"),
            (None, true, Some(5), "in the 5 bytes of ramdisk in memory"),
        ] {
            let said = missing(&ExpectedImage { bytes, ..ExpectedImage::at("/a") }, marked, retained);
            assert!(said.contains(expected), "{said}");
        }
    }
}
