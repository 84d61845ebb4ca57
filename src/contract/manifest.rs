//! The manifest of a build: `manifest.json`. `firn build` writes it; the other subcommands and other programs read it.

use crate::contract::file_name::{FileName, MemberPath, ensure_printable};
use crate::contract::kind::Kind;
use crate::contract::place::ZERO_COPY;
use crate::formats::printable::printable_line;
use crate::host::file;
use anyhow::{Context, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

/// The name of the file in the build directory.
pub const FILE: &str = "manifest.json";

/// The names of the files that a machine boots, or that boot it. No store image has one of them.
pub const BOOTED: [&str; 6] = ["bzImage", ZERO_COPY, "initrd", "initrd.gz", "netboot.ipxe", "kexec-boot"];

/// The longest manifest that is read, bytes.
const LONGEST: u64 = 16 << 20;

/// The contents of `manifest.json`. Another version of firn may have written it. A missing field is read as empty, and so is an
/// unreadable field that only `firn build` needs. Anybody else may have written it, too: [`Manifest::read`] lets in no name that leads
/// out of the directory, and no text that breaks a line of a script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// The version of firn that made the build.
    pub firn: String,
    /// The label of the system, for people to read, such as `NixOS 25.11 (Linux 6.12)`.
    pub label: String,
    /// The platform, such as `x86_64-linux`.
    pub system: String,
    /// The system's path in the store.
    #[serde(deserialize_with = "or_empty")]
    pub toplevel: String,
    /// The system's init.
    pub init: String,
    /// The kind of the system: it decides the steps of stage 1 before the init.
    #[serde(deserialize_with = "or_empty")]
    pub hand_over: Option<Kind>,
    /// The kernel parameters that the boot loader has to pass, without its own ones such as `initrd=`. Those that load
    /// [`zero-copy.cpio`](ZERO_COPY), if the build has it, before the ramdisk add `retain_initrd`.
    pub cmdline: String,
    /// The kernel's release (`uname -r`).
    pub kernel_release: String,
    /// The modules that every boot loads, in this order.
    pub modules: Vec<String>,
    /// The number of store paths in the images.
    #[serde(deserialize_with = "or_empty")]
    pub store_paths: usize,
    /// The total size of these paths as NARs, bytes.
    #[serde(deserialize_with = "or_empty")]
    pub store_bytes: u64,
    /// The store images, the lowest layer first.
    #[serde(deserialize_with = "image_files")]
    pub images: Vec<ImageFile>,
    /// The size of the part of `initrd` (`initrd.gz`) before the store images, bytes. This part is a complete ramdisk without store images.
    #[serde(deserialize_with = "or_empty")]
    pub before_images: u64,
    /// The subcommand that made the directory from a build, `ipxe` or `kexec`; empty for a build. Such a directory is no input of the
    /// other subcommands: its ramdisk may lack the store image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tree: String,
    /// All other files of the directory.
    pub files: Vec<FileEntry<FileName>>,
}

/// A store image of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name in the directory.
    pub file: FileName,
    /// Its path in the ramdisk, where stage 1 looks for it.
    pub path: MemberPath,
}

/// A file of a build, with a [`FileName`] in a manifest; or another file that firn made, with any name that the user gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry<Name = String> {
    /// Its name in the directory.
    pub name: Name,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// The manifest as the text of the file.
    ///
    /// # Errors
    ///
    /// None in practice: all fields are plain data.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads the manifest of a directory.
    ///
    /// # Errors
    ///
    /// A directory that `firn build` did not make, or a damaged manifest.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let mut json = Vec::new();
        file::open(&path, "a directory made by `firn build`")?
            .take(LONGEST + 1)
            .read_to_end(&mut json)
            .with_context(|| format!("reading {}", path.display()))?;
        let parsed = if json.len() as u64 > LONGEST {
            Err(anyhow!("it has more than {LONGEST} bytes"))
        } else {
            serde_json::from_slice(&json).map_err(|error| anyhow!(printable_line(&error.to_string())))
        };
        parsed
            .and_then(|manifest: Self| manifest.check().map(|()| manifest))
            .with_context(|| format!("{} is damaged or is not a manifest; build the system again", path.display()))
    }

    /// Checks the texts that are no [`FileName`] by their type, and that each name is that of one file: a directory that is made from
    /// the build has files of these names.
    ///
    /// # Errors
    ///
    /// A platform or a kernel release that cannot be a part of a path, a control character anywhere, or a name that is there twice.
    pub fn check(&self) -> Result<()> {
        for (text, field) in [(&self.system, "system"), (&self.kernel_release, "kernel_release")] {
            if !text.is_empty() {
                FileName::new(text).with_context(|| format!("the field {field}"))?;
            }
        }
        let mut names = HashSet::from([FILE]);
        for file in &self.files {
            ensure!(names.insert(&file.name), "the file {} is there twice", file.name);
        }
        let (mut names, mut paths) = (HashSet::from(BOOTED), HashSet::new());
        names.insert(FILE);
        for image in &self.images {
            ensure!(names.insert(&image.file), "the store image {} has the name of another file", image.file);
            ensure!(paths.insert(&image.path), "two store images have the path {}", image.path);
        }
        ensure_printable(self)
    }
}

/// Whether a file has a name that `firn build` gives to store images: `nix-store.squashfs`, `nix-store-2.erofs`.
#[must_use]
pub fn is_image_name(name: &str) -> bool {
    let stem = name.strip_suffix(".squashfs").or_else(|| name.strip_suffix(".erofs"));
    let number = stem.and_then(|stem| stem.strip_prefix("nix-store"));
    number.is_some_and(|number| {
        number.is_empty() || number.strip_prefix('-').is_some_and(|digits| digits.parse::<u8>().is_ok())
    })
}

impl FileEntry {
    /// The same file in a manifest.
    ///
    /// # Errors
    ///
    /// A name that a manifest cannot have.
    pub fn checked(&self) -> Result<FileEntry<FileName>> {
        Ok(FileEntry { name: FileName::new(&self.name)?, bytes: self.bytes, sha256: self.sha256.clone() })
    }
}

impl FileEntry<FileName> {
    /// The same file under another name.
    #[must_use]
    pub fn named(&self, name: &str) -> FileEntry {
        FileEntry { name: name.into(), bytes: self.bytes, sha256: self.sha256.clone() }
    }
}

/// The store images, or none if this firn does not know the form of the list. A name in a known form has to be right.
fn image_files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ImageFile>, D::Error> {
    #[derive(Default, Deserialize)]
    struct Unchecked {
        file: String,
        path: String,
    }
    let images: Vec<Unchecked> = or_empty(deserializer)?;
    let checked =
        |Unchecked { file, path }| Ok(ImageFile { file: FileName::new(&file)?, path: MemberPath::new(&path)? });
    images.into_iter().map(checked).collect::<Result<_>>().map_err(D::Error::custom)
}

/// The value of a field, or the default if this firn does not know its form.
fn or_empty<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_other_versions() {
        let directory = tempfile::tempdir().unwrap();
        let read = |json: &str| {
            std::fs::write(directory.path().join(FILE), json).unwrap();
            Manifest::read(directory.path())
        };
        assert_eq!(read("{}").unwrap(), Manifest::default());
        let newer = r#"{"label": "x", "hand_over": "another-kind", "images": ["a"], "before_images": null, "more": 1}"#;
        assert_eq!(read(newer).unwrap(), Manifest { label: "x".into(), ..Manifest::default() });
        let ours = Manifest {
            hand_over: Some(Kind::NixosInit),
            images: vec![ImageFile { file: FileName::new("a").unwrap(), path: MemberPath::new("/a").unwrap() }],
            ..Manifest::default()
        };
        assert_eq!(read(&ours.to_json().unwrap()).unwrap(), ours);
        for bad in ["{", "[1]", r#"{"files": [{"name": "a"}]}"#] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("is damaged or is not a manifest; build the system again"), "{error}");
        }
    }

    #[test]
    fn c_3_a_manifest_with_a_bad_name_is_refused_and_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let entry = |name: &str| format!(r#"{{"name": "{name}", "bytes": 1, "sha256": ""}}"#);
        let images = |images: &[(&str, &str)]| {
            let images: Vec<_> =
                images.iter().map(|(file, path)| serde_json::json!({"file": file, "path": path})).collect();
            serde_json::json!({"images": images}).to_string()
        };
        for (json, expected) in [
            (
                r#"{"files": [{"name": "../../evil", "bytes": 1, "sha256": ""}]}"#,
                r#""../../evil" is not the name of a file"#,
            ),
            (r#"{"files": [{"name": "/etc/evil", "bytes": 1, "sha256": ""}]}"#, r#""/etc/evil" is not the name"#),
            (r#"{"files": [{"name": "a\nboot", "bytes": 1, "sha256": ""}]}"#, r#""a\nboot" is not the name"#),
            (r#"{"files": [{"name": "a", "bytes": 1, "sha256": "\u001b"}]}"#, r#""\u{1b}" has a control character"#),
            (r#"{"images": [{"file": "..", "path": "/a"}]}"#, r#"".." is not the name of a file"#),
            (r#"{"images": [{"file": "a", "path": "/a mode=755\nboot"}]}"#, r#""/a mode=755\nboot" is not the path"#),
            (r#"{"images": [{"file": "a", "path": "/../a"}]}"#, r#""/../a" is not the path"#),
            (r#"{"kernel_release": "../../tmp"}"#, r#"the field kernel_release: "../../tmp" is not the name"#),
            (r#"{"system": "x/../../evil"}"#, r#"the field system: "x/../../evil" is not the name"#),
            (r#"{"label": "NixOS\nboot"}"#, r#"the text "NixOS\nboot" has a control character"#),
            (r#"{"cmdline": "quiet\nshell"}"#, r#"the text "quiet\nshell" has"#),
            (r#"{"cmdline": "a\u007fb"}"#, r#"the text "a\u{7f}b" has"#),
            (r#"{"toplevel": "/nix/store/\u202ex"}"#, r#"the text "/nix/store/\u{202e}x" has"#),
            (r#"{"init": "\u009b2J", "modules": []}"#, r#"the text "\u{9b}2J" has"#),
            (r#"{"modules": ["/lib/a", "\u0000"]}"#, r#"the text "\0" has"#),
            (r#"{"firn": "\u2066"}"#, "has a control character"),
            (&format!(r#"{{"files": [{}, {0}]}}"#, entry("a")), "the file a is there twice"),
            (&format!(r#"{{"files": [{}]}}"#, entry("manifest.json")), "the file manifest.json is there twice"),
            (&images(&[("initrd", "/a")]), "the store image initrd has the name of another file"),
            (&images(&[("bzImage", "/a")]), "the store image bzImage has the name of another file"),
            (&images(&[("netboot.ipxe", "/a")]), "the store image netboot.ipxe has the name of another file"),
            (&images(&[("manifest.json", "/a")]), "the store image manifest.json has the name of another file"),
            (&images(&[("a", "/a"), ("a", "/b")]), "the store image a has the name of another file"),
            (&images(&[("a", "/a"), ("b", "/a")]), "two store images have the path /a"),
        ] {
            std::fs::write(directory.path().join(FILE), json).unwrap();
            let error = format!("{:#}", Manifest::read(directory.path()).unwrap_err());
            let named = error.contains(expected) && error.contains("manifest.json is damaged or is not a manifest");
            assert!(named && !error.contains(char::is_control), "{json}: {error}");
        }
    }
}
