//! The directory that iPXE boots from: the script and its files.

use crate::build::ways::build_directory::BuildDirectory;
use crate::build::ways::limits::Loader;
use crate::contract::manifest::{self, FileEntry, ImageFile};
use crate::contract::place::ZERO_COPY;
use crate::formats::kernel_line::{KernelLine, shown};
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

/// Makes a directory to serve: `netboot.ipxe`, `bzImage`, `initrd`, in the split form the store image, and a manifest of these. The script fetches the
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
    let zero_copy = build.has_zero_copy();
    let script = script(&build.cmdline("", Loader::Any)?, zero_copy, images, &base)?;
    let files: Vec<_> = ["bzImage"].into_iter().chain(zero_copy.then_some(ZERO_COPY)).collect();
    let mut output = match form {
        Form::Combined => build.output(out, "ipxe", &same_names(files.into_iter().chain(["initrd"])), progress)?,
        Form::Split => {
            ensure!(
                !images.is_empty(),
                "manifest.json names no store image to serve as a separate file; build the system again, or leave out --split"
            );
            let files = files.into_iter().chain(images.iter().map(|image| &*image.file));
            let mut output = build.output(out, "ipxe", &same_names(files), progress)?;
            let ramdisk = build.ramdisk_without_images()?;
            output.write_with("initrd", ramdisk.private, |out| ramdisk.copy(out))?;
            output
        }
    };
    output.write("netboot.ipxe", |out| Ok(out.write_all(script.as_bytes())?))?;
    let manifest = build.manifest_of_tree("ipxe", output.entries())?;
    output.write(manifest::FILE, |out| Ok(out.write_all(manifest.as_bytes())?))?;
    output.publish()
}

fn same_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    names.map(|name| (name, name)).collect()
}

/// A script that boots with a command line; with `zero_copy`, the images stay where iPXE puts them. iPXE adds `images` to the ramdisk. A
/// server without the file for zero copy is no error: stage 1 frees one of two copies of the images then.
///
/// `initrd=initrd` is for the EFI stub of the kernel, which finds the ramdisk by this name; `initrd.magic` is the name of all
/// ramdisks that iPXE has combined. From Linux 5.7 on the stub also finds it without the parameter. A script that chain-loads this
/// one can set `${cmdline}` to add kernel parameters.
///
/// # Errors
///
/// A word that iPXE cannot pass to the kernel.
pub fn script(cmdline: &KernelLine, zero_copy: bool, images: &[ImageFile], base: &str) -> Result<String> {
    let ramdisks = match (zero_copy, images) {
        (_, [_, ..]) => "initrd=initrd.magic".into(),
        (true, []) => format!("initrd={ZERO_COPY} initrd=initrd"),
        (false, []) => "initrd=initrd".into(),
    };
    let zero_copy = if zero_copy { format!("initrd {base}{ZERO_COPY} ||\n") } else { String::new() };
    // iPXE makes an archive of a file with a path after it (https://ipxe.org/cmd/initrd).
    let line = |image: &ImageFile| format!("initrd {base}{} {} mode=444\n", image.file, image.path);
    let images: String = images.iter().map(line).collect();
    let mut settings = String::new();
    let mut words =
        |words: &[String]| -> Result<String> { words.iter().map(|one| Ok(word(one, &mut settings)? + " ")).collect() };
    let for_kernel = words(cmdline.for_kernel())?;
    let for_init = words(cmdline.for_init())?;
    let for_init = if for_init.is_empty() { String::new() } else { format!(" -- {}", for_init.trim_end()) };
    Ok(format!(
        "#!ipxe\n\
         # Made by firn. Set the variable cmdline before chain-loading this to add words to the kernel's command line.\n\
         {settings}\
         kernel {base}bzImage {ramdisks} {for_kernel}${{cmdline}}{for_init}\n\
         {zero_copy}\
         initrd {base}initrd\n\
         {images}boot\n"
    ))
}

/// A word of the command line as iPXE has to read it, so that the kernel gets the word itself.
///
/// iPXE splits a line at white space and joins the rest of a `kernel` line with single spaces. It ends a command at `;`, `||`, `&&` and at
/// a part that begins with `#` (core/exec.c); a backslash may join two lines (image/script.c); quotes mean nothing. A word that it would
/// change becomes the value of a setting, in hexadecimal: iPXE reads values no more, except for `${`, which it expands again and again
/// (`expand_settings`, core/settings.c).
fn word(word: &str, settings: &mut String) -> Result<String> {
    ensure!(
        !word.split_once("${").is_some_and(|(_, rest)| rest.contains('}')),
        "the kernel parameter {} has ${{…}}, which iPXE replaces by the value of a setting, in any spelling: write it without (boot.kernelParams)",
        shown(word)
    );
    // As a program for UEFI, older versions pass each byte as a character.
    ensure!(
        word.is_ascii(),
        "the kernel parameter {} has characters that are not ASCII, which iPXE changes: write it without them (boot.kernelParams)",
        shown(word)
    );
    let is_kept = |part: &str| !matches!(part, "" | ";" | "||" | "&&") && !part.starts_with('#');
    if !word.contains('\\') && !word.contains("${") && word.split(' ').all(is_kept) {
        return Ok(word.into());
    }
    let name = format!("firn-word-{}", settings.lines().count() + 1);
    settings.extend(["set ", &name, ":hexraw ", &hex::encode(word), "\n"]);
    Ok(format!("${{{name}:string}}"))
}

/// A URL to which file names can be appended: it has a server, and neither a query nor a fragment, behind which they would be lost.
fn base(url: &str) -> Result<String> {
    let server = url.split_once("://").map_or("", |(_, server)| server);
    ensure!(
        !server.is_empty()
            && !server.starts_with(['/', ':'])
            && !url.contains(|c: char| c.is_whitespace() || c.is_control() || "?#".contains(c))
            && url.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$'),
        "\"{url}\" is not the URL of a directory for iPXE; give one such as --base-url http://server/boot"
    );
    Ok(format!("{}/", url.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::ways::build_directory::tests::sample;
    use crate::contract::file_name::{FileName, MemberPath};
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::fs;

    fn lines(cmdline: &str, images: &[ImageFile], base: &str) -> Vec<String> {
        let script = script(&KernelLine::of_text(cmdline).unwrap(), false, images, base).unwrap();
        script.lines().filter(|line| !line.starts_with("# ")).map(Into::into).collect()
    }

    #[test]
    fn the_kernel_line_carries_everything() {
        assert_eq!(
            lines("init=/nix/store/x/init quiet", &[], ""),
            ["#!ipxe", "kernel bzImage initrd=initrd init=/nix/store/x/init quiet ${cmdline}", "initrd initrd", "boot"]
        );
        let image = |file: &str, path: &str| ImageFile {
            file: FileName::new(file).unwrap(),
            path: MemberPath::new(path).unwrap(),
        };
        let images = [image("a.squashfs", "/a.squashfs"), image("b.squashfs", "/b.squashfs")];
        assert_eq!(
            lines("quiet", &images, "http://a/"),
            [
                "#!ipxe",
                "kernel http://a/bzImage initrd=initrd.magic quiet ${cmdline}",
                "initrd http://a/initrd",
                "initrd http://a/a.squashfs /a.squashfs mode=444",
                "initrd http://a/b.squashfs /b.squashfs mode=444",
                "boot"
            ]
        );
    }

    #[test]
    fn d_1_the_script_loads_the_file_for_zero_copy_first() {
        let line = KernelLine::of_text("retain_initrd quiet").unwrap();
        let script = script(&line, true, &[], "http://a/").unwrap();
        let end = "kernel http://a/bzImage initrd=zero-copy.cpio initrd=initrd retain_initrd quiet ${cmdline}\n\
                   initrd http://a/zero-copy.cpio ||\ninitrd http://a/initrd\nboot\n";
        assert!(script.ends_with(end), "{script}");
    }

    /// The command line that iPXE makes of a script, by the rules of core/exec.c and core/settings.c. `None` if the line with the kernel
    /// ends early.
    fn read(script: &str, cmdline: &str) -> Option<String> {
        let mut settings = HashMap::from([("cmdline".to_owned(), cmdline.to_owned())]);
        for line in script.replace("\\\n", "").lines() {
            let tokens: Vec<_> = line.split_ascii_whitespace().collect();
            match tokens.as_slice() {
                ["set", name, value] => {
                    let bytes = hex::decode(value).unwrap();
                    settings.insert(name.replace(":hexraw", ":string"), String::from_utf8(bytes).unwrap());
                }
                ["kernel", _, words @ ..] => {
                    if words.iter().any(|word| matches!(*word, ";" | "||" | "&&") || word.starts_with('#')) {
                        return None;
                    }
                    let expanded = words.iter().map(|word| {
                        let mut word = (*word).to_owned();
                        while let Some(end) =
                            word.match_indices('}').map(|(end, _)| end).find(|end| word[..*end].contains("${"))
                        {
                            let begin = word[..end].rfind("${").unwrap();
                            let value = settings.get(&word[begin + 2..end]).cloned().unwrap_or_default();
                            word.replace_range(begin..=end, &value);
                        }
                        word
                    });
                    return Some(expanded.collect::<Vec<_>>().join(" "));
                }
                _ => {}
            }
        }
        None
    }

    #[test]
    fn c_5_words_that_ipxe_would_read_otherwise() {
        let words = [
            "a=1 ; 2", "b=x  y", "c=#", "#d", "e=|| f", "||", "&&", ";", "g=\\", "h=${x", "i=$x", "k='l' m", "n\\",
            "--", "o ; p",
        ];
        let script = script(&KernelLine::of_words(&words).unwrap(), false, &[], "").unwrap();
        let expected = "initrd=initrd a=\"1 ; 2\" b=\"x  y\" c=# #d e=\"|| f\" || && ; g=\\ h=${x i=$x k=\"'l' m\" n\\ x=1 -- \"o ; p\"";
        assert_eq!(read(&script, "x=1").unwrap(), expected);
        assert!(script.contains(" c=# ") && script.contains(" k=\"'l' m\" "), "{script}");

        for (word, expected) in
            [("a=${b}", "a=${b} has ${…}"), ("a=${ b }", "${…}"), ("a=é", "a=é has characters that are not ASCII")]
        {
            let error = super::script(&KernelLine::of_words(&[word]).unwrap(), false, &[], "").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn c_5_ipxe_passes_every_word(words in prop::collection::vec("[a-b #;&|${}=\\\\]{1,6}", 0..8)) {
            let line = KernelLine::of_words(&words).unwrap();
            if let Ok(script) = script(&line, false, &[], "") {
                let (before, after) = (line.for_kernel(), line.for_init());
                let mut expected = vec!["initrd=initrd"];
                expected.extend(before.iter().map(String::as_str).chain(["quiet"]));
                expected.extend(["--"].iter().filter(|_| !after.is_empty()).copied().chain(after.iter().map(String::as_str)));
                prop_assert_eq!(read(&script, "quiet").unwrap(), expected.join(" "));
            } else {
                let has_setting = words.iter().any(|word| word.contains("${"));
                prop_assert!(has_setting);
            }
        }
    }

    #[test]
    fn urls_get_file_names_appended() {
        for url in ["http://server/boot", "http://server/boot/", "http://server/boot//"] {
            assert_eq!(base(url).unwrap(), "http://server/boot/");
        }
        assert_eq!(base("http://${next-server}").unwrap(), "http://${next-server}/");
        for url in [
            "",
            "server/boot",
            "http://a b/",
            "--x=://",
            "#://",
            "http://a\u{1b}/",
            "http://",
            "http:///boot",
            "http://:80/boot",
            "http://server/?x=1",
            "http://server/#x",
        ] {
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
            (Form::Combined, vec!["bzImage", "initrd", "netboot.ipxe", "manifest.json"]),
            (Form::Split, vec!["bzImage", "nix-store.squashfs", "initrd", "netboot.ipxe", "manifest.json"]),
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
