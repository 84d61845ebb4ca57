//! The system to pack, as its toplevel describes it.

use crate::contract::kind::Kind;
use crate::contract::nixos_init::{self, Config, kernel_has_etc_overlay};
use crate::contract::parameters::{RAMFS, RETAIN};
use crate::contract::plan::Start;
use crate::formats::kernel_image;
use anyhow::{Context, Result, anyhow, bail, ensure};
use bootspec::generation::Generation;
use bootspec::v1::BootSpecV1;
use bootspec::{BootJson, JSON_FILENAME};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const STORE: &str = "/nix/store";

/// A NixOS system.
#[derive(Debug)]
pub struct System {
    /// Its path in the store.
    pub toplevel: PathBuf,
    /// Its init, an absolute path.
    pub init: String,
    /// Its kernel image.
    pub kernel: PathBuf,
    /// What `uname -r` says on that kernel.
    pub kernel_release: String,
    /// Words for the kernel command line.
    pub kernel_params: Vec<String>,
    /// `/lib/modules/<release>` of the kernel; none when the kernel comes without modules.
    pub modules: Option<PathBuf>,
    /// For people, such as `NixOS 25.11 (Linux 6.12)`.
    pub label: String,
    /// Such as `x86_64-linux`.
    pub platform: String,
    /// `networking.hostId`, eight hexadecimal digits.
    pub host_id: Option<String>,
    /// What it expects of stage 1.
    pub kind: Kind,
    /// What executes its init, if that is a script.
    pub interpreter: Option<String>,
    /// Whether its `/etc` is an overlay on an erofs image.
    pub etc_overlay: bool,
}

impl System {
    /// The words that the boot loader gives to the kernel, with `retain` the one that keeps the ramdisk.
    #[must_use]
    pub fn cmdline(&self, retain: bool) -> String {
        let mut words = vec![format!("init={}", self.init)];
        words.extend(self.kernel_params.iter().cloned());
        if !self.kernel_params.iter().any(|word| word.starts_with("rootfstype=")) {
            words.push(RAMFS.into());
        }
        if retain && !self.kernel_params.iter().any(|word| word == RETAIN) {
            words.push(RETAIN.into());
        }
        words.join(" ")
    }
}

/// Reads what a toplevel says of itself: by its bootspec, or by its other files where it is too old to have one.
///
/// # Errors
///
/// A path that is no toplevel in the store, or a system that cannot be booted from memory by firn.
pub fn read(path: &Path) -> Result<System> {
    let toplevel = in_store(path)?;
    let Start { kind, interpreter } = start(&toplevel)?;
    let spec = bootspec(&toplevel)?;
    let image = fs::read(&spec.kernel).with_context(|| {
        format!(
            "{} has no kernel: reading {}; build it with boot.kernel.enable = true",
            toplevel.display(),
            spec.kernel.display()
        )
    })?;
    let (kernel_release, modules) = release_and_modules(&toplevel, &image)?;
    let etc_overlay = etc_overlay(&toplevel, kind)?;
    ensure!(
        !etc_overlay || kernel_has_etc_overlay(&kernel_release),
        "{} has an overlay for /etc, which takes Linux 6.6 or newer, and its kernel is {kernel_release}; build it with a newer \
         kernel, or with system.etc.overlay.enable = false",
        toplevel.display()
    );
    ensure!(
        spec.init == toplevel.join("init"),
        "the boot.json of {} names the init {} and not its own; build the system again",
        toplevel.display(),
        spec.init.display()
    );
    Ok(System {
        init: spec.init.to_string_lossy().into_owned(),
        kernel: spec.kernel,
        kernel_release,
        kernel_params: spec.kernel_params,
        modules,
        label: spec.label,
        platform: spec.system,
        host_id: host_id(&toplevel)?,
        kind,
        interpreter,
        etc_overlay,
        toplevel,
    })
}

/// What the system is made for, and how its init is executed.
fn start(toplevel: &Path) -> Result<Start> {
    let init = fs::read(toplevel.join("init")).with_context(|| {
        format!(
            "{} has no init: it is no NixOS system; give the path that nixos-rebuild build or \
             config.system.build.toplevel makes",
            toplevel.display()
        )
    })?;
    let kind = Kind::of_toplevel(toplevel.join("prepare-root").exists(), &init);
    Ok(Start { kind, interpreter: Kind::interpreter(&init) })
}

/// Whether stage 1 will have an overlay to mount on `/etc`: the bootspec says so to nixos-init.
fn etc_overlay(toplevel: &Path, kind: Kind) -> Result<bool> {
    if kind == Kind::Classic {
        return Ok(false);
    }
    let path = toplevel.join(JSON_FILENAME);
    let config = match fs::read_to_string(&path) {
        Ok(json) => Config::parse(&json).with_context(|| format!("reading {}", path.display()))?.0,
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    ensure!(config.is_some() || kind != Kind::NixosInit, "{}", nixos_init::missing(&toplevel.to_string_lossy()));
    Ok(config.is_some_and(|config| config.etc_overlay.is_some()))
}

/// Follows symlinks to a path directly below the store.
///
/// # Errors
///
/// A path that is not there, not in the store, or inside of a store path.
pub fn in_store(path: &Path) -> Result<PathBuf> {
    let real = path
        .canonicalize()
        .with_context(|| format!("cannot find {}; give the toplevel of a NixOS system", path.display()))?;
    let Ok(inside) = real.strip_prefix(STORE) else {
        bail!(
            "{} is not in the Nix store {STORE}; build the system with Nix and give the path it prints",
            real.display()
        );
    };
    let mut parts = inside.components();
    match (parts.next(), parts.next()) {
        (Some(name), None) => Ok(Path::new(STORE).join(name)),
        (Some(name), Some(_)) => {
            bail!(
                "{} lies inside a store path; give the toplevel {STORE}/{}",
                real.display(),
                Path::new(&name).display()
            )
        }
        (None, _) => bail!("{} is the whole store; give the toplevel of one system in it", real.display()),
    }
}

fn bootspec(toplevel: &Path) -> Result<BootSpecV1> {
    let path = toplevel.join(JSON_FILENAME);
    let document: BootJson = match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json).with_context(|| {
            format!("{} is no bootspec of version 1 (RFC 125); build the system with a NixOS of 23.05 or newer", path.display())
        })?,
        Err(error) if error.kind() == ErrorKind::NotFound => BootJson::synthesize_latest(toplevel).with_context(|| {
            format!(
                "{} has no boot.json and not the files to do without: is it a NixOS system? Give the path that nixos-rebuild \
                 build makes",
                toplevel.display()
            )
        })?,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    match document.generation {
        Generation::V1(generation) => Ok(generation.bootspec),
        _ => bail!("{} has a bootspec of another version than 1, which this firn does not know", path.display()),
    }
}

/// The host id that the system has in its `/etc/hostid`: four bytes, the lowest first (nixpkgs, `tasks/network-interfaces.nix`).
fn host_id(toplevel: &Path) -> Result<Option<String>> {
    let path = toplevel.join("etc/hostid");
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        Ok(bytes) => {
            let bytes: [u8; 4] = bytes.try_into().map_err(|_| {
                anyhow!("{} has not the four bytes of a host id: build the system again", path.display())
            })?;
            Ok(Some(format!("{:08x}", u32::from_le_bytes(bytes))))
        }
    }
}

/// The kernel's release and the directory of its modules. The kernel image knows its own release on x86; where it does
/// not, the directory of its modules has the name.
fn release_and_modules(toplevel: &Path, image: &[u8]) -> Result<(String, Option<PathBuf>)> {
    let parent = toplevel.join("kernel-modules/lib/modules");
    let mut directories: Vec<String> = match fs::read_dir(&parent) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", parent.display())),
    };
    directories.sort();
    let release = match (kernel_image::release(image), directories.as_slice()) {
        (Some(release), []) => return Ok((release, None)),
        (Some(release), found) if found.contains(&release) => release,
        (None, [release]) => release.clone(),
        (release, found) => bail!(
            "{} has modules for {} and a kernel of release {}: they do not belong together; build the system again",
            parent.display(),
            if found.is_empty() { "no kernel".into() } else { found.join(", ") },
            release.unwrap_or_else(|| "unknown".into()),
        ),
    };
    let modules = parent.join(&release);
    Ok((release, Some(modules)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(params: &[&str]) -> System {
        System {
            toplevel: "/nix/store/x".into(),
            init: "/nix/store/x/init".into(),
            kernel: "/nix/store/k/bzImage".into(),
            kernel_release: "6.1".into(),
            kernel_params: params.iter().map(|word| (*word).into()).collect(),
            modules: None,
            label: String::new(),
            platform: String::new(),
            host_id: None,
            kind: Kind::Classic,
            interpreter: None,
            etc_overlay: false,
        }
    }

    #[test]
    fn command_lines() {
        assert_eq!(
            system(&["quiet", "panic=1"]).cmdline(false),
            "init=/nix/store/x/init quiet panic=1 rootfstype=ramfs"
        );
        assert_eq!(system(&["rootfstype=tmpfs"]).cmdline(false), "init=/nix/store/x/init rootfstype=tmpfs");
        for params in [&[][..], &["retain_initrd"]] {
            assert_eq!(system(params).cmdline(true).matches(" retain_initrd").count(), 1);
        }
    }

    #[test]
    fn paths_that_are_no_toplevel() {
        for (path, expected) in [("/nonexistent/system", "cannot find"), ("/usr", "is not in the Nix store")] {
            let error = format!("{:#}", read(Path::new(path)).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
