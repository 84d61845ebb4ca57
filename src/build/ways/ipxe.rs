//! What iPXE boots from: the script, and the files beside it.

use crate::build::ways::built::Built;
use crate::contract::manifest::{FileEntry, ImageFile};
use crate::host::progress::Progress;
use anyhow::{Result, ensure};
use std::io::Write;
use std::path::Path;

/// How the store image gets into the ramdisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It is there: one ramdisk for everything.
    Fat,
    /// iPXE puts it there, from a plain file.
    Split,
}

/// Makes a directory to serve: `netboot.ipxe`, `bzImage`, `initrd`, and in the split form the store image. The script
/// looks for the others beside itself, or at `base_url`.
///
/// # Errors
///
/// A base URL that is none, a build that is not whole, and those of writing.
pub fn tree(
    built: &Built,
    out: &Path,
    form: Form,
    base_url: Option<&str>,
    progress: Progress,
) -> Result<Vec<FileEntry>> {
    let base = base_url.map(base).transpose()?.unwrap_or_default();
    let images = if form == Form::Split { built.manifest.images.as_slice() } else { &[] };
    let mut output = match form {
        Form::Fat => built.output(out, &[("bzImage", "bzImage"), ("initrd", "initrd")], progress)?,
        Form::Split => {
            let files: Vec<_> = ["bzImage"].into_iter().chain(images.iter().map(|image| image.file.as_str())).collect();
            let files: Vec<_> = files.into_iter().map(|name| (name, name)).collect();
            let mut output = built.output(out, &files, progress)?;
            output.write("initrd", |out| built.ramdisk_without_images()?.copy(out))?;
            output
        }
    };
    let script = script(&built.manifest.cmdline, images, &base);
    output.write("netboot.ipxe", |out| Ok(out.write_all(script.as_bytes())?))?;
    output.publish()
}

/// A script with the words `cmdline` for the kernel. iPXE puts the files of `images` into the ramdisk, if there are any.
///
/// `initrd=initrd` names the ramdisk to the EFI stub of the kernel, which finds it by that name; `initrd.magic` is the name of
/// everything that iPXE has put together. From Linux 5.7 on the stub finds that without being told, too. `${cmdline}` is for
/// whoever chain-loads the script and has words to add.
#[must_use]
pub fn script(cmdline: &str, images: &[ImageFile], base: &str) -> String {
    let name = if images.is_empty() { "initrd" } else { "initrd.magic" };
    // iPXE makes an archive of a file that has a path after it (https://ipxe.org/cmd/initrd).
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

/// A URL that names of files can be appended to.
fn base(url: &str) -> Result<String> {
    ensure!(
        url.contains("://") && !url.contains(char::is_whitespace),
        "\"{url}\" is no URL for a script of iPXE; give one such as --base-url http://server/boot"
    );
    Ok(format!("{}/", url.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::ways::built::tests::sample;
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
    fn urls_that_names_are_appended_to() {
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
    fn the_split_form_has_the_image_beside_the_ramdisk() {
        let directory = tempfile::tempdir().unwrap();
        let built = sample(directory.path(), "", "quiet", "init");
        let out = directory.path().join("out");
        for (form, expected) in [
            (Form::Fat, vec!["bzImage", "initrd", "netboot.ipxe"]),
            (Form::Split, vec!["bzImage", "nix-store.squashfs", "initrd", "netboot.ipxe"]),
        ] {
            let files = tree(&built, &out, form, None, Progress::Quiet).unwrap();
            assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), expected);
        }
        assert_eq!(fs::read(out.join("initrd")).unwrap(), b"init");
        assert_eq!(fs::read(out.join("nix-store.squashfs")).unwrap(), b"an image");
        // The build itself is as it was.
        built.ramdisk().unwrap();
    }
}
