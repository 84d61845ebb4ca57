//! What goes into the store image: the closures of the system and of what else was asked for, without what was asked to be
//! left out.

use crate::build::system::nix;
use crate::build::system::toplevel::{System, in_store};
use crate::formats::registration::{self, Registered};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The paths of the store image, apart from those that belong to the system.
#[derive(Debug, Default)]
pub struct Contents {
    /// A directory that nixpkgs' `closureInfo` made, with the files `registration` and `store-paths`: taken in place of
    /// asking the Nix database of this machine.
    pub closure_info: Option<PathBuf>,
    /// Store paths, or symlinks to some, that come with their closures.
    pub added: Vec<PathBuf>,
    /// Store paths that are left out.
    pub excluded: Vec<PathBuf>,
    /// Whether the kernel and the ramdisk that belong to the system are left out: firn's ramdisk takes the place of the one,
    /// and the boot loader has the other.
    pub without_kernel: bool,
}

impl Contents {
    /// The paths, sorted, each with what it refers to of the others.
    ///
    /// # Errors
    ///
    /// No Nix or a closure-info that cannot be read, a path that is missing, or one to leave out that would not be there
    /// anyway.
    pub fn collect(&self, system: &System) -> Result<Vec<Registered>> {
        let mut roots = vec![system.toplevel.clone()];
        for path in &self.added {
            roots.push(in_store(path)?);
        }
        let closure = match &self.closure_info {
            Some(directory) => from_closure_info(directory, &roots)?,
            None => present(nix::closure(&roots)?)
                .context("the store is damaged; nix-store --verify --check-contents --repair mends it")?,
        };
        let mut excluded = HashSet::new();
        for path in &self.excluded {
            excluded.insert(text(&in_store(path)?)?.to_owned());
        }
        if self.without_kernel {
            excluded.insert(store_path(&system.kernel)?);
            // Old systems have no ramdisk of their own, and others none that is a store path.
            excluded.extend(system.toplevel.join("initrd").canonicalize().ok().and_then(|path| store_path(&path).ok()));
        }
        without(closure, &excluded)
    }
}

/// Takes paths away, and what refers to them: Nix registers no path that refers to one it does not know.
fn without(closure: Vec<Registered>, excluded: &HashSet<String>) -> Result<Vec<Registered>> {
    if let Some(path) = excluded.iter().find(|path| closure.iter().all(|registered| registered.path != **path)) {
        bail!("{path} cannot be left out: it is not among what would be packed; leave out --exclude {path}");
    }
    let (mut left, _): (Vec<_>, Vec<_>) =
        closure.into_iter().partition(|registered| !excluded.contains(&registered.path));
    for registered in &mut left {
        registered.references.retain(|path| !excluded.contains(path));
    }
    Ok(left)
}

/// Reads the closure that nixpkgs' `closureInfo` wrote down (nixpkgs, `build-support/closure-info.nix`).
fn from_closure_info(directory: &Path, roots: &[PathBuf]) -> Result<Vec<Registered>> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| {
            format!("reading {}; --closure-info takes the directory that closureInfo makes", path.display())
        })
    };
    let (registration, paths) = (read("registration")?, read("store-paths")?);
    let closure =
        registration::parse(&registration).with_context(|| format!("reading {}/registration", directory.display()))?;
    check(&closure, &paths, roots).and_then(|()| present(closure)).with_context(|| {
        format!("{} does not fit; make it anew, with closureInfo of this very system", directory.display())
    })
}

/// Makes sure that a registration is whole: all paths of the list, all roots, every reference, valid hashes.
fn check(closure: &[Registered], paths: &str, roots: &[PathBuf]) -> Result<()> {
    let known: HashSet<_> = closure.iter().map(|registered| registered.path.as_str()).collect();
    for root in roots {
        ensure!(known.contains(text(root)?), "it is for another system: {} is not in it", root.display());
    }
    if let Some(path) = paths.lines().find(|path| !known.contains(path)) {
        bail!("{path} of its store-paths is not in its registration");
    }
    for registered in closure {
        let path = &registered.path;
        if let Some(reference) = registered.references.iter().find(|reference| !known.contains(reference.as_str())) {
            bail!("{path} refers to {reference}, which is not in it");
        }
        ensure!(
            registration::is_nar_hash(&registered.nar_hash),
            "{path} has the hash {:?}, which is none",
            registered.nar_hash
        );
    }
    Ok(())
}

/// Makes sure that every path is there: Nix knows paths that somebody has deleted behind its back.
fn present(closure: Vec<Registered>) -> Result<Vec<Registered>> {
    for Registered { path, .. } in &closure {
        ensure!(fs::symlink_metadata(path).is_ok(), "{path} is not in the store of this machine");
    }
    Ok(closure)
}

/// The path directly below the store that `path` lies in.
fn store_path(path: &Path) -> Result<String> {
    let real = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let inside = real.strip_prefix("/nix/store").with_context(|| format!("{} is not in the store", real.display()))?;
    let name = inside.components().next().context("it is the whole store")?;
    Ok(text(&Path::new("/nix/store").join(name))?.to_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
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
    fn what_is_left_out_is_nowhere_referred_to() {
        let closure = || vec![registered("/a", &["/a", "/b", "/c"]), registered("/b", &["/c"]), registered("/c", &[])];
        let left = without(closure(), &HashSet::from(["/c".into()])).unwrap();
        assert_eq!(left, [registered("/a", &["/a", "/b"]), registered("/b", &[])]);
        assert_eq!(without(closure(), &HashSet::new()).unwrap(), closure());
        let error = without(closure(), &HashSet::from(["/d".into()])).unwrap_err().to_string();
        assert!(error.starts_with("/d cannot be left out"), "{error}");
    }

    #[test]
    fn a_closure_info_has_to_be_whole() {
        // Paths that are there on any machine.
        let closure = [registered("/bin", &["/etc"]), registered("/etc", &[])];
        let roots = [PathBuf::from("/bin")];
        check(&closure, "/bin\n/etc\n", &roots).unwrap();
        let mut bad_hash = closure.clone();
        bad_hash[1].nar_hash = "sha256:xyz".into();
        for (closure, paths, root, expected) in [
            (&closure[..], "/bin\n", "/usr", "for another system: /usr is not in it"),
            (&closure[..], "/bin\n/lib\n", "/bin", "/lib of its store-paths is not in its registration"),
            (&closure[..1], "/bin\n", "/bin", "/bin refers to /etc, which is not in it"),
            (&bad_hash[..], "/bin\n", "/bin", "/etc has the hash \"sha256:xyz\", which is none"),
        ] {
            let error = check(closure, paths, &[root.into()]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = present(vec![registered("/no/such/path", &[])]).unwrap_err().to_string();
        assert_eq!(error, "/no/such/path is not in the store of this machine");
    }
}
