//! The directory that iPXE boots from: the script and its files.

use crate::build::ways::build_directory::BuildDirectory;
use crate::contract::manifest::FileEntry;
use crate::contract::manifest::ImageFile;
use crate::host::progress::Progress;
use anyhow::{Result, ensure};
use std::io::Write;
use std::path::Path;

/// The way of the store image into the ramdisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It is part of the file `initrd`.
    Combined,
    /// iPXE adds it, from a separate file.
    Split,
}

/// Makes a directory to serve: `netboot.ipxe`, `bzImage`, `initrd`, and in the split form the store image. The script fetches the
/// other files from its own directory, or from `base_url`.
///
/// # Errors
///
/// An invalid base URL, a damaged build, and those of writing.
pub fn tree(
    build: &BuildDirectory,
    out: &Path,
    form: Form,
    base_url: Option<&str>,
    progress: Progress,
) -> Result<Vec<FileEntry>> {
    let base = base_url.map(base).transpose()?.unwrap_or_default();
    let images = if form == Form::Split { build.manifest.images.as_slice() } else { &[] };
    let mut output = match form {
        Form::Combined => build.output(out, &[("bzImage", "bzImage"), ("initrd", "initrd")], progress)?,
        Form::Split => {
            let files: Vec<_> = ["bzImage"].into_iter().chain(images.iter().map(|image| image.file.as_str())).collect();
            let files: Vec<_> = files.into_iter().map(|name| (name, name)).collect();
            let mut output = build.output(out, &files, progress)?;
            let ramdisk = build.ramdisk_without_images()?;
            output.write_with("initrd", ramdisk.private, |out| ramdisk.copy(out))?;
            output
        }
    };
    let script = script(&build.manifest.cmdline, images, &base);
    output.write("netboot.ipxe", |out| Ok(out.write_all(script.as_bytes())?))?;
    output.publish()
}

/// A script that boots with the kernel parameters `cmdline`. iPXE adds `images` to the ramdisk.
///
/// `initrd=initrd` is for the EFI stub of the kernel, which finds the ramdisk by this name; `initrd.magic` is the name of all
/// ramdisks that iPXE has combined. From Linux 5.7 on the stub also finds it without the parameter. A script that chain-loads this
/// one can set `${cmdline}` to add kernel parameters.
#[must_use]
pub fn script(cmdline: &str, images: &[ImageFile], base: &str) -> String {
    let name = if images.is_empty() { "initrd" } else { "initrd.magic" };
    // iPXE makes an archive of a file with a path after it (https://ipxe.org/cmd/initrd).
    let line = |image: &ImageFile| format!("initrd {base}{} {} mode=444\n", image.file, image.path);
    let images: String = images.iter().map(line).collect();
    format!(
        "#!ipxe\n\
         # Made by firn. Set the variable cmdline before chain-loading this to add words to the kernel's command line.\n\
         kernel {base}bzImage {cmdline} initrd={name} ${{cmdline}}\n\
         initrd {base}initrd\n\
         {images}boot\n"
    )
}

/// A URL to which file names can be appended.
fn base(url: &str) -> Result<String> {
    ensure!(
        url.contains("://") && !url.contains(char::is_whitespace),
        "\"{url}\" is not a URL for iPXE; give one such as --base-url http://server/boot"
    );
    Ok(format!("{}/", url.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::ways::build_directory::tests::sample;
    use std::fs;

    fn lines(script: &str) -> Vec<&str> {
        script.lines().filter(|line| !line.starts_with("# ")).collect()
    }

    #[test]
    fn the_kernel_line_carries_everything() {
        assert_eq!(
            lines(&script("init=/nix/store/x/init quiet", &[], "")),
            ["#!ipxe", "kernel bzImage init=/nix/store/x/init quiet initrd=initrd ${cmdline}", "initrd initrd", "boot"]
        );
        let image = |file: &str, path: &str| ImageFile { file: file.into(), path: path.into() };
        let images = [image("a.squashfs", "/a.squashfs"), image("b.squashfs", "/firn-retained/b.squashfs")];
        assert_eq!(
            lines(&script("quiet", &images, "http://a/")),
            [
                "#!ipxe",
                "kernel http://a/bzImage quiet initrd=initrd.magic ${cmdline}",
                "initrd http://a/initrd",
                "initrd http://a/a.squashfs /a.squashfs mode=444",
                "initrd http://a/b.squashfs /firn-retained/b.squashfs mode=444",
                "boot"
            ]
        );
    }

    #[test]
    fn urls_get_file_names_appended() {
        for url in ["http://server/boot", "http://server/boot/", "http://server/boot//"] {
            assert_eq!(base(url).unwrap(), "http://server/boot/");
        }
        assert_eq!(base("http://${next-server}").unwrap(), "http://${next-server}/");
        for url in ["", "server/boot", "http://a b/"] {
            let error = base(url).unwrap_err().to_string();
            assert!(error.contains("such as --base-url http://server/boot"), "{error}");
        }
    }

    #[test]
    fn the_split_form_has_the_image_in_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let build = sample(directory.path(), "", "quiet", "init");
        let out = directory.path().join("out");
        for (form, expected) in [
            (Form::Combined, vec!["bzImage", "initrd", "netboot.ipxe"]),
            (Form::Split, vec!["bzImage", "nix-store.squashfs", "initrd", "netboot.ipxe"]),
        ] {
            let files = tree(&build, &out, form, None, Progress::Quiet).unwrap();
            assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), expected);
        }
        assert_eq!(fs::read(out.join("initrd")).unwrap(), b"init");
        assert_eq!(fs::read(out.join("nix-store.squashfs")).unwrap(), b"an image");
        // The build did not change.
        build.ramdisk().unwrap();
    }
}
