//! Names that others wrote: of files in a directory, and paths of files in a ramdisk. They come out of manifests and plans, and become
//! paths on the build machine, parts of URLs and words of scripts.

use crate::formats::printable::is_unprintable;
use anyhow::{Result as AnyResult, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::ops::Deref;
use std::path::Path;

/// The longest name of a file, bytes (`NAME_MAX`, include/uapi/linux/limits.h).
pub const LONGEST: usize = 255;

/// The name of a file: ASCII letters, digits and `._+~-`, at most 255 of them, none of `.~-` at the beginning. It is one component of a path,
/// and means itself in a URL, in a script of iPXE and in a shell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

/// The path of a file in a ramdisk: absolute, each component a [`FileName`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberPath(String);

/// A text that is no name of a file, or no path.
#[derive(Debug, PartialEq, Eq)]
pub struct NameError {
    text: String,
    noun: &'static str,
}

fn is_name(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte));
    letters && (1..=LONGEST).contains(&name.len()) && !name.starts_with(['.', '~', '-'])
}

impl FileName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// Any other text.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if is_name(name) { Ok(Self(name.into())) } else { Err(NameError { text: name.into(), noun: "name of a file" }) }
    }
}

impl MemberPath {
    /// Checks a path.
    ///
    /// # Errors
    ///
    /// Any other text.
    pub fn new(path: &str) -> Result<Self, NameError> {
        match path.strip_prefix('/') {
            Some(rest) if rest.split('/').all(is_name) => Ok(Self(path.into())),
            _ => Err(NameError { text: path.into(), noun: "path of a file in a ramdisk" }),
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a long text the beginning is enough to find it.
        let shown: String = self.text.chars().take(LONGEST).collect();
        let dots = if shown == self.text { "" } else { "…" };
        write!(
            f,
            "{shown:?}{dots} is not the {}; firn takes letters, digits and ._+~-, and none of .~- at the beginning",
            self.noun
        )
    }
}

impl std::error::Error for NameError {}

/// The conversions of a checked text.
macro_rules! checked_text {
    ($type:ty) => {
        impl $type {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(checked: $type) -> Self {
                checked.0
            }
        }

        impl Deref for $type {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

checked_text!(FileName);
checked_text!(MemberPath);

impl AsRef<Path> for FileName {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl PartialEq<&str> for FileName {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// Makes sure that no text in a value, such as a manifest, has an unprintable character ([`is_unprintable`]): it becomes a line of a
/// script, or of a terminal.
///
/// # Errors
///
/// The first text that has one.
pub fn ensure_printable(value: &impl Serialize) -> AnyResult<()> {
    walk(&serde_json::to_value(value)?)
}

fn walk(value: &Value) -> AnyResult<()> {
    match value {
        Value::String(text) => {
            ensure!(!text.contains(is_unprintable), "the text {text:?} has a control character");
            Ok(())
        }
        Value::Array(values) => values.iter().try_for_each(walk),
        Value::Object(fields) => fields.values().try_for_each(walk),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_3_names_of_files() {
        for name in ["bzImage", "nix-store-2.squashfs", "6.12.95+deb13-cloud-amd64", "a~b_c", "0", &"x".repeat(255)] {
            assert_eq!(FileName::new(name).unwrap(), name);
        }
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "-rf",
            "~root",
            "a/b",
            "/a",
            "../../evil",
            "a\0b",
            "a\nb",
            "a b",
            "a\tb",
            "a\u{1b}b",
            "a\u{7f}b",
            "a\u{9b}b",
            "a\u{202e}b",
            "ä",
            "a$b",
            "${cmdline}",
            "a;b",
            "a&b",
            "a|b",
            "a#b",
            "a%2fb",
            "a?b",
            "a*b",
            "a\\b",
            "a'b",
            "a\"b",
            "a`b",
            "a(b",
            "a<b",
            "a:b",
            "a=b",
            "a,b",
            "a@b",
            "a!b",
            "a[b",
            "a{b",
            &"x".repeat(256),
        ] {
            let error = FileName::new(name).unwrap_err().to_string();
            assert!(error.contains("is not the name of a file; firn takes letters"), "{error}");
            assert!(!error.contains(crate::formats::printable::is_unprintable), "{error:?}");
            serde_json::from_value::<FileName>(name.into()).unwrap_err();
        }
    }

    #[test]
    fn c_3_paths_of_files_in_a_ramdisk() {
        for path in ["/nix-store.squashfs", "/images/nix-store-2.erofs"] {
            assert_eq!(MemberPath::new(path).unwrap().to_string(), path);
        }
        for path in
            ["", "/", "a", "a/b", "//a", "/a/", "/a//b", "/../a", "/a/..", "/a/./b", "/a b", "/a\nboot", "/-a", "/${x}"]
        {
            let error = MemberPath::new(path).unwrap_err().to_string();
            assert!(error.contains("is not the path of a file in a ramdisk"), "{error}");
        }
    }
}
