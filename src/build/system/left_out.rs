//! Store paths that are left out of the store image: refuses those without which the system cannot start, and finds the file or symlink
//! that points to a left-out path.

use crate::build::system::toplevel::{NixosSystem, STORE};
use crate::formats::registration::Registered;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// Links of a toplevel that only the boot loader follows (nixpkgs, `nixos/modules/system/activation/top-level.nix`).
const OF_BOOT_LOADER: [&str; 3] = ["kernel", "initrd", "dtbs"];
/// Links in a directory of kernel modules to the kernel's source, which no machine needs to load them.
const SOURCES: [&str; 2] = ["build", "source"];

/// A file or symlink, or a store path as a whole, that points to a left-out path.
struct Pointer {
    from: PathBuf,
    to: String,
}

/// Refuses to leave out a path that the system needs to start: a toplevel, one that its links lead to, and the closures of systemd and of
/// the interpreter of its init. `of_kernel` are the paths that `--without-kernel` leaves out.
///
/// # Errors
///
/// A needed path that is left out: the error names the link to it and both ways out. A file of the system that cannot be read.
pub(super) fn check(
    system: &NixosSystem,
    closure: &[Registered],
    excluded: &HashSet<String>,
    of_kernel: &HashSet<String>,
) -> Result<()> {
    if excluded.is_empty() {
        return Ok(());
    }
    let toplevel = system.toplevel.to_string_lossy().into_owned();
    if excluded.contains(&toplevel) {
        let way_out = if of_kernel.contains(&toplevel) {
            ways_out(&toplevel, of_kernel)
        } else {
            format!("leave out --exclude {toplevel}")
        };
        bail!("{toplevel} cannot be left out: it is the system itself; {way_out}");
    }
    let references: HashMap<_, _> = closure.iter().map(|path| (path.path.as_str(), &path.references)).collect();
    for toplevel in toplevels(&system.toplevel, excluded)? {
        if let Some(Pointer { from, to }) = needed(&toplevel, &references, excluded)? {
            bail!(
                "{to} cannot be left out: {} points to it, and the system {} needs it to run; {}",
                from.display(),
                toplevel.display(),
                ways_out(&to, of_kernel)
            );
        }
    }
    Ok(())
}

fn ways_out(path: &str, of_kernel: &HashSet<String>) -> String {
    if of_kernel.contains(path) {
        "leave out --without-kernel, or build a system whose kernel lies in a store path of its own, without the modules".into()
    } else {
        format!("leave out --exclude {path}, or build a system that does not need it")
    }
}

/// The toplevel and those of its specialisations that are packed.
fn toplevels(toplevel: &Path, excluded: &HashSet<String>) -> Result<Vec<PathBuf>> {
    let mut packed = vec![toplevel.to_path_buf()];
    for entry in entries(&toplevel.join("specialisation"))? {
        let path = readable(&entry, entry.canonicalize())?;
        if store_path(&path).is_some_and(|path| !excluded.contains(&path)) {
            packed.push(path);
        }
    }
    Ok(packed)
}

/// The entries of a directory, sorted; none if there is no such directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<_>> {
        let mut paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    match read() {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => Ok(Vec::new()),
        read => readable(directory, read),
    }
}

/// Adds the path and the next step to an error: a pointer in a file that cannot be read would be overlooked.
fn readable<T>(path: &Path, read: io::Result<T>) -> Result<T> {
    read.with_context(|| {
        format!("reading {}; run firn as a user who may read it, or build the system again", path.display())
    })
}

/// The first pointer from the files that a start needs to a left-out path.
fn needed(
    toplevel: &Path,
    references: &HashMap<&str, &Vec<String>>,
    excluded: &HashSet<String>,
) -> Result<Option<Pointer>> {
    let is =
        |path: &Path, names: &[&str]| path.file_name().is_some_and(|name| names.iter().any(|other| name == *other));
    let mut starts = BTreeSet::new();
    for entry in entries(toplevel)?.iter().filter(|entry| !is(entry, &OF_BOOT_LOADER)) {
        let modules = is(entry, &["kernel-modules"]);
        if let Some(pointer) = link(entry, modules, excluded, &mut HashSet::new())? {
            return Ok(Some(pointer));
        }
        if is(entry, &["init", "prepare-root", "activate", "systemd"]) {
            let real = readable(entry, entry.canonicalize())?;
            starts.extend(store_path(&real));
            // The scripts of the toplevel name the interpreter, and the programs and files that they use.
            let script = if real.is_file() { readable(entry, fs::read(entry))? } else { Vec::new() };
            for path in named_in(&script) {
                if excluded.contains(&path) {
                    return Ok(Some(Pointer { from: entry.clone(), to: path }));
                }
                starts.insert(path);
            }
        }
    }
    // The toplevel refers to everything: only its links count.
    starts.remove(&*toplevel.to_string_lossy());
    let (mut seen, mut next) = (starts.clone(), starts.into_iter().collect::<Vec<_>>());
    while let Some(path) = next.pop() {
        for to in references.get(path.as_str()).into_iter().flat_map(|references| references.iter()) {
            if excluded.contains(to) {
                let from = pointer_in(Path::new(&path), to).unwrap_or_else(|| path.into());
                return Ok(Some(Pointer { from, to: to.clone() }));
            }
            if seen.insert(to.clone()) {
                next.push(to.clone());
            }
        }
    }
    Ok(None)
}

/// The store paths that a script names.
fn named_in(script: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(script);
    let of_name = |character: char| character.is_ascii_alphanumeric() || "+-._?=".contains(character);
    let names = text.split("/nix/store/").skip(1).map(|rest| rest.split(|character| !of_name(character)).next());
    names.flatten().filter(|name| !name.is_empty()).map(|name| format!("{STORE}/{name}")).collect()
}

/// Follows a link, and with `deep` all links below it, until one leads to a left-out path.
fn link(path: &Path, deep: bool, excluded: &HashSet<String>, seen: &mut HashSet<PathBuf>) -> Result<Option<Pointer>> {
    if !seen.insert(path.to_path_buf()) {
        return Ok(None);
    }
    if let Ok(target) = fs::read_link(path) {
        let target = normalized(&path.parent().unwrap_or(path).join(target));
        return match store_path(&target) {
            Some(to) if excluded.contains(&to) => Ok(Some(Pointer { from: path.into(), to })),
            _ => link(&target, deep, excluded, seen),
        };
    }
    if deep {
        for entry in entries(path)?.iter().filter(|entry| !SOURCES.iter().any(|source| entry.ends_with(source))) {
            if let Some(pointer) = link(entry, deep, excluded, seen)? {
                return Ok(Some(pointer));
            }
        }
    }
    Ok(None)
}

/// The first symlink or file in a store path that has the name of another one in it, for a message; a file that cannot be read is not it.
pub(super) fn pointer_in(path: &Path, to: &str) -> Option<PathBuf> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let names = |bytes: &[u8]| bytes.windows(to.len()).any(|window| window == to.as_bytes());
    if metadata.is_symlink() {
        use std::os::unix::ffi::OsStrExt;
        return names(fs::read_link(path).ok()?.as_os_str().as_bytes()).then(|| path.into());
    }
    if metadata.is_file() {
        return names(&fs::read(path).ok()?).then(|| path.into());
    }
    let mut entries: Vec<_> = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.iter().find_map(|entry| pointer_in(entry, to))
}

/// A path without `.` and `..`.
fn normalized(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
        path
    })
}

/// The store path in which a path lies, from its name alone.
fn store_path(path: &Path) -> Option<String> {
    let name = path.strip_prefix(STORE).ok()?.components().next()?;
    Some(Path::new(STORE).join(name).to_str()?.to_owned())
}
