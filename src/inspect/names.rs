//! Names that others wrote into a ramdisk or a store image, and that firn prints or joins to a path.

use crate::contract::file_name::{FileName, MemberPath, ensure_printable};
use crate::contract::plan::Plan;
use anyhow::{Context, Result, ensure};

/// The store of the systems that firn packs.
const STORE: &str = "/nix/store/";

/// Checks the names in a plan. Stage 1 does not: the plan is a part of its own ramdisk.
///
/// # Errors
///
/// A kernel release or a place of an image that is no name of a file, or a control character anywhere.
pub fn check_plan(plan: &Plan) -> Result<()> {
    FileName::new(&plan.kernel_release).context("the kernel release")?;
    for image in &plan.images {
        MemberPath::new(&image.path).context("the path of a store image")?;
    }
    ensure_printable(plan)
}

/// Checks a store path of a registration: a name directly below the store, in Nix' letters (`checkName` in libstore/path.cc, Nix 2.18).
///
/// # Errors
///
/// Any other text.
pub fn check_store_path(path: &str) -> Result<()> {
    let is_name = |name: &str| {
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte));
        letters && (1..=255).contains(&name.len()) && !name.starts_with('.')
    };
    ensure!(path.strip_prefix(STORE).is_some_and(is_name), "the registration names {path:?}, which is no store path");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::plan::VERSION;

    fn plan(json: &serde_json::Value) -> Result<()> {
        let mut plan = serde_json::json!({"version": VERSION, "firn": "1", "kernel_release": "6.9", "init": "/x/init",
            "modules": ["/lib/modules/6.9/a.ko"],
            "images": [{"path": "/nix-store.squashfs", "bytes": 1, "sha256": "00"}]});
        for (name, value) in json.as_object().unwrap() {
            plan[name] = value.clone();
        }
        check_plan(&Plan::from_json(&plan.to_string())?)
    }

    #[test]
    fn c_3_names_in_plans() {
        let image = |path: &str| serde_json::json!({"images": [{"path": path, "bytes": 1, "sha256": ""}]});
        plan(&serde_json::json!({})).unwrap();
        for (json, expected) in [
            (serde_json::json!({"kernel_release": "../../tmp"}), "the kernel release: \"../../tmp\" is not the name"),
            (serde_json::json!({"kernel_release": ""}), "the kernel release: \"\" is not the name"),
            (image("/../a"), "the path of a store image: \"/../a\" is not the path"),
            (image("/a\nb"), "\"/a\\nb\" is not the path"),
            (serde_json::json!({"init": "/x\u{1b}[2J"}), "\"/x\\u{1b}[2J\" has a control character"),
            (serde_json::json!({"modules": ["/lib/\u{202e}"]}), "has a control character"),
            (serde_json::json!({"roots": ["a\nb"]}), "\"a\\nb\" has a control character"),
        ] {
            let error = format!("{:#}", plan(&json).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn c_3_names_of_store_paths() {
        for path in ["/nix/store/b", "/nix/store/00000000000000000000000000000000-a+b-1.0_x?=y"] {
            check_store_path(path).unwrap();
        }
        for path in [
            "",
            "/nix/store/",
            "/nix/store/..",
            "/nix/store/a/b",
            "/etc/passwd",
            "/nix/store/a\u{1b}[2J",
            "/nix/store/\u{202e}a",
            "/nix/store/ä",
        ] {
            let error = check_store_path(path).unwrap_err().to_string();
            assert!(error.contains("is no store path") && !error.contains(char::is_control), "{error}");
        }
    }
}
