//! The store paths of the store image: the closures of the system and of the added paths, without the excluded ones.

use crate::build::system::toplevel::{NixosSystem, in_store};
use crate::build::system::{left_out, nix};
use crate::formats::registration::{self, Registered};
use crate::host::file;
use crate::host::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How many of the references to excluded paths are named.
const NAMED: usize = 3;

/// Store paths to add to those of the system, or to leave out.
#[derive(Debug, Default)]
pub struct StoreSelection {
    /// A directory that `closureInfo` of nixpkgs made, with the files `registration` and `store-paths`: read instead of the Nix
    /// database of this machine.
    pub closure_info: Option<PathBuf>,
    /// Store paths, or symlinks to store paths, that are added with their closures.
    pub added: Vec<PathBuf>,
    /// Store paths that are left out.
    pub excluded: Vec<PathBuf>,
    /// Whether the kernel of the system and its own ramdisk are left out: the boot loader gets its own copy of the kernel, and the
    /// ramdisk of firn.
    pub without_kernel: bool,
}

/// The contents of the store image.
#[derive(Debug)]
pub struct Selected {
    /// The store paths, sorted, each with its references to the others.
    pub closure: Vec<Registered>,
    /// Those that were selected by name, sorted: the system and the added paths. Of a closure-info also all paths that no other path of
    /// it refers to, since it does not name them.
    pub roots: Vec<String>,
}

impl StoreSelection {
    /// The selected store paths. References to excluded paths are removed, and `progress` names them.
    ///
    /// # Errors
    ///
    /// No Nix, a closure-info that cannot be read, a path that is missing, or an excluded path that is not part of the closure.
    pub fn collect(&self, system: &NixosSystem, progress: Progress) -> Result<Selected> {
        let mut roots = vec![system.toplevel.clone()];
        for path in &self.added {
            roots.push(named(path, "--store-content")?);
        }
        let (closure, unreferenced) = if let Some(directory) = &self.closure_info {
            from_closure_info(directory, &roots)?
        } else {
            let closure = present(nix::closure(&roots)?)
                .context("the store is damaged; repair it with nix-store --verify --check-contents --repair")?;
            (closure, Vec::new())
        };
        let mut excluded = HashSet::new();
        for path in &self.excluded {
            let path = named(path, "--exclude")?;
            // The toplevel gets an error.
            if path != system.toplevel && roots.contains(&path) {
                progress.say(&format!("{} is left out: --exclude goes before --store-content", path.display()));
            }
            excluded.insert(text(&path)?.to_owned());
        }
        let mut of_kernel = HashSet::new();
        if self.without_kernel {
            let kernel =
                store_path(&system.kernel).context("the kernel cannot be left out; leave out --without-kernel")?;
            of_kernel.insert(kernel);
            // Old systems have no ramdisk, and that of others is no store path.
            of_kernel
                .extend(system.toplevel.join("initrd").canonicalize().ok().and_then(|path| store_path(&path).ok()));
            of_kernel.retain(|path| !excluded.contains(path));
            excluded.extend(of_kernel.iter().cloned());
        }
        left_out::check(system, &closure, &excluded, &of_kernel)?;
        let (kept, removed) = without(closure, &excluded)?;
        if let Some(warning) = warning(&removed) {
            progress.say(&warning);
        }
        let named = roots.iter().map(|root| text(root).map(str::to_owned)).collect::<Result<BTreeSet<_>>>()?;
        let roots = named.into_iter().chain(unreferenced).filter(|root| !excluded.contains(root));
        Ok(Selected { closure: kept, roots: roots.collect::<BTreeSet<_>>().into_iter().collect() })
    }
}

/// A reference from a packed store path to an excluded one.
#[derive(Debug, PartialEq, Eq)]
struct RemovedReference {
    from: String,
    to: String,
}

/// Removes store paths from a closure, and the references to them, which are returned: Nix registers no path with a reference to
/// an unknown one. A path that loses a reference gets the hash of [`registration::cut`]: Nix would copy it without the path that it needs.
fn without(closure: Vec<Registered>, excluded: &HashSet<String>) -> Result<(Vec<Registered>, Vec<RemovedReference>)> {
    if let Some(path) = excluded.iter().find(|path| closure.iter().all(|registered| registered.path != **path)) {
        bail!("{path} cannot be excluded: it is not in the closure; leave out --exclude {path}");
    }
    let mut removed = Vec::new();
    let mut kept: Vec<_> = closure.into_iter().filter(|registered| !excluded.contains(&registered.path)).collect();
    for Registered { path, references, nar_hash, .. } in &mut kept {
        let (to_excluded, to_kept) = references.drain(..).partition(|reference| excluded.contains(reference));
        *references = to_kept;
        let to_excluded: Vec<String> = to_excluded;
        if !to_excluded.is_empty() {
            *nar_hash = registration::cut(nar_hash)?;
        }
        removed.extend(to_excluded.into_iter().map(|to| RemovedReference { from: path.clone(), to }));
    }
    Ok((kept, removed))
}

/// A sentence on the references that were removed, if there are any: the first [`NAMED`] of them and their number.
fn warning(removed: &[RemovedReference]) -> Option<String> {
    let named = removed.iter().take(NAMED).map(|RemovedReference { from, to }| {
        let file = left_out::pointer_in(Path::new(from), to);
        let file = file.map(|file| format!(" (in {})", file.display())).unwrap_or_default();
        format!("{from} refers to {to}{file}")
    });
    let mut named: Vec<_> = named.collect();
    if named.is_empty() {
        return None;
    }
    if let Some(others) = removed.len().checked_sub(NAMED).filter(|others| *others > 0) {
        named.push(format!("and {others} more"));
    }
    let references = if removed.len() == 1 { "reference" } else { "references" };
    Some(format!(
        "{} {references} from packed store paths to excluded ones: {}. The excluded paths are missing in the booted \
         system: programs that open a file in them will fail, and its Nix refuses to copy the packed paths that refer to them (hash \
         mismatch, 1zzzz…)",
        removed.len(),
        named.join("; ")
    ))
}

/// Reads a closure from the files of `closureInfo` (nixpkgs, `build-support/closure-info.nix`).
/// Returns also the paths that no other path refers to.
fn from_closure_info(directory: &Path, roots: &[PathBuf]) -> Result<(Vec<Registered>, Vec<String>)> {
    let read = |name: &str| {
        let path = directory.join(name);
        let text = file::read(&path).and_then(|text| String::from_utf8(text).map_err(io::Error::other));
        text.with_context(|| {
            format!("reading {}; --closure-info needs the directory that closureInfo makes", path.display())
        })
    };
    let (registration, paths) = (read("registration")?, read("store-paths")?);
    let closure =
        registration::parse(&registration).with_context(|| format!("reading {}/registration", directory.display()))?;
    let unreferenced = registration::unreferenced(&registration);
    let closure = check(&closure, &paths, roots).and_then(|()| present(closure)).with_context(|| {
        format!("{} does not belong to this system; make it again with closureInfo of this system", directory.display())
    })?;
    Ok((closure, unreferenced))
}

/// Makes sure that a registration is complete: it has all paths of the list, all roots and every reference, with valid hashes.
fn check(closure: &[Registered], paths: &str, roots: &[PathBuf]) -> Result<()> {
    let known: HashSet<_> = closure.iter().map(|registered| registered.path.as_str()).collect();
    for root in roots {
        ensure!(known.contains(text(root)?), "it is for another system: it does not contain {}", root.display());
    }
    if let Some(path) = paths.lines().find(|path| !known.contains(path)) {
        bail!("the file registration does not contain {path}, which the file store-paths lists");
    }
    for registered in closure {
        let path = &registered.path;
        if let Some(reference) = registered.references.iter().find(|reference| !known.contains(reference.as_str())) {
            bail!("{path} refers to {reference}, which the file registration does not contain");
        }
        ensure!(
            registration::is_nar_hash(&registered.nar_hash),
            "{path} has the hash {:?}, which is not a SHA-256",
            registered.nar_hash
        );
    }
    Ok(())
}

/// Makes sure that every path exists: the database of Nix still lists a path that somebody deleted without Nix.
fn present(closure: Vec<Registered>) -> Result<Vec<Registered>> {
    for Registered { path, .. } in &closure {
        ensure!(fs::symlink_metadata(path).is_ok(), "{path} is not in the store of this machine");
    }
    Ok(closure)
}

/// Follows symlinks until the path is in the store, as Nix does: a store path that is itself a symlink stays this path.
/// `option` is the one that names the path.
fn named(path: &Path, option: &str) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).with_context(|| format!("finding {}", path.display()))?;
    // Without slashes at its end.
    let mut named: PathBuf = absolute.components().collect();
    // The kernel follows as many (MAXSYMLINKS, include/linux/namei.h).
    for _ in 0..40 {
        if named.parent() == Some(Path::new("/nix/store")) && fs::symlink_metadata(&named).is_ok() {
            return Ok(named);
        }
        let Ok(target) = fs::read_link(&named) else { break };
        named = named.parent().unwrap_or(&named).join(target);
    }
    in_store(path, &format!("a store path with {option}"))
}

/// The store path that contains `path`.
fn store_path(path: &Path) -> Result<String> {
    let real = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let inside = real.strip_prefix("/nix/store").with_context(|| format!("{} is not in the store", real.display()))?;
    let name = inside.components().next().with_context(|| format!("{} is the whole store", real.display()))?;
    Ok(text(&Path::new("/nix/store").join(name))?.to_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(path: &str, references: &[&str]) -> Registered {
        Registered {
            path: path.into(),
            nar_hash: format!("sha256:{}", "0".repeat(52)),
            nar_size: 1,
            references: references.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn references_to_excluded_paths_are_removed_and_reported() {
        let closure = || vec![registered("/a", &["/a", "/b", "/c"]), registered("/b", &["/c"]), registered("/c", &[])];
        let removed = |from: &str, to: &str| RemovedReference { from: from.into(), to: to.into() };
        let cut = |path: Registered| Registered { nar_hash: registration::cut(&path.nar_hash).unwrap(), ..path };
        assert_eq!(
            without(closure(), &HashSet::from(["/c".into()])).unwrap(),
            (
                vec![cut(registered("/a", &["/a", "/b"])), cut(registered("/b", &[]))],
                vec![removed("/a", "/c"), removed("/b", "/c")]
            )
        );
        assert_eq!(without(closure(), &HashSet::new()).unwrap(), (closure(), vec![]));
        // Paths that are excluded together may refer to each other.
        let both = HashSet::from(["/b".into(), "/c".into()]);
        assert_eq!(without(closure(), &both).unwrap().1, [removed("/a", "/b"), removed("/a", "/c")]);
        let error = without(closure(), &HashSet::from(["/d".into()])).unwrap_err().to_string();
        assert!(error.starts_with("/d cannot be excluded"), "{error}");
    }

    #[test]
    fn the_warning_names_the_first_references() {
        let removed = |count: usize| -> Vec<_> {
            (0..count).map(|number| RemovedReference { from: format!("/{number}"), to: "/x".into() }).collect()
        };
        assert_eq!(warning(&[]), None);
        for (count, expected) in [
            (1, "1 reference from packed store paths to excluded ones: /0 refers to /x. "),
            (
                3,
                "3 references from packed store paths to excluded ones: /0 refers to /x; /1 refers to /x; /2 refers to /x. ",
            ),
            (7, "/1 refers to /x; /2 refers to /x; and 4 more. The excluded paths are missing in the booted system"),
        ] {
            let warning = warning(&removed(count)).unwrap();
            assert!(warning.contains(expected), "{warning}");
        }
    }

    #[test]
    fn a_closure_info_has_to_be_complete() {
        // Paths that exist on every machine.
        let closure = [registered("/bin", &["/etc"]), registered("/etc", &[])];
        let roots = [PathBuf::from("/bin")];
        check(&closure, "/bin\n/etc\n", &roots).unwrap();
        let mut bad_hash = closure.clone();
        bad_hash[1].nar_hash = "sha256:xyz".into();
        for (closure, paths, root, expected) in [
            (&closure[..], "/bin\n", "/usr", "for another system: it does not contain /usr"),
            (&closure[..], "/bin\n/lib\n", "/bin", "does not contain /lib, which the file store-paths lists"),
            (&closure[..1], "/bin\n", "/bin", "/bin refers to /etc, which the file registration does not contain"),
            (&bad_hash[..], "/bin\n", "/bin", "/etc has the hash \"sha256:xyz\", which is not a SHA-256"),
        ] {
            let error = check(closure, paths, &[root.into()]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = present(vec![registered("/no/such/path", &[])]).unwrap_err().to_string();
        assert_eq!(error, "/no/such/path is not in the store of this machine");
    }
}
