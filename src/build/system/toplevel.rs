//! The system to pack, read from its toplevel.

use crate::build::system::etc_overlay;
use crate::build::system::modprobe::{self, ModprobeConfig};
use crate::contract::kind::Kind;
use crate::contract::parameters::{PREFIX, RAMFS, RETAIN};
use crate::contract::plan::Start;
use crate::contract::release::{LEAST, at_least};
use crate::formats::kernel_image;
use crate::formats::kernel_line::KernelLine;
use crate::host::file;
use anyhow::{Context, Result, anyhow, bail, ensure};
use bootspec::generation::Generation;
use bootspec::v1::BootSpecV1;
use bootspec::{BootJson, JSON_FILENAME};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The Nix store.
pub const STORE: &str = "/nix/store";

/// A NixOS system.
#[derive(Debug)]
pub struct NixosSystem {
    /// Its path in the store.
    pub toplevel: PathBuf,
    /// Its init, an absolute path.
    pub init: String,
    /// Its kernel image.
    pub kernel: PathBuf,
    /// The release of the kernel (`uname -r`).
    pub kernel_release: String,
    /// Its kernel parameters.
    pub kernel_params: Vec<String>,
    /// `/lib/modules/<release>` of the kernel; none if the kernel has no modules.
    pub modules: Option<PathBuf>,
    /// What it says about its modules.
    pub modprobe: ModprobeConfig,
    /// The directory of its firmware, `/lib/firmware`; none if it has no firmware.
    pub firmware: Option<PathBuf>,
    /// The label for people, such as `NixOS 25.11 (Linux 6.12)`.
    pub label: String,
    /// The platform, such as `x86_64-linux`.
    pub platform: String,
    /// `networking.hostId`, eight hexadecimal digits.
    pub host_id: Option<String>,
    /// The work that it expects from stage 1.
    pub kind: Kind,
    /// The interpreter of its init, if that is a script.
    pub interpreter: Option<String>,
    /// Whether its `/etc` is an overlay on an erofs image.
    pub etc_overlay: bool,
}

impl NixosSystem {
    /// The kernel command line. The words that stage 1 needs come first: a boot loader may add others, and the kernel cuts off the end of
    /// a long line.
    ///
    /// # Errors
    ///
    /// A kernel parameter that cannot be written into a command line.
    pub fn cmdline(&self) -> Result<KernelLine> {
        let mut line = KernelLine::of_words(&self.kernel_params).with_context(|| {
            format!("boot.kernelParams of {} do not fit into a command line", self.toplevel.display())
        })?;
        line.put_first(|word| word == RETAIN || word.starts_with("rootfstype=") || word.starts_with(PREFIX));
        let given = |name: &str| line.for_kernel().iter().any(|word| word.split('=').next() == Some(name));
        let mut first = vec![format!("init={}", self.init)];
        first.extend((!given("rootfstype")).then(|| RAMFS.into()));
        let mut whole = KernelLine::of_words(&first)?;
        whole.append(line);
        Ok(whole)
    }
}

/// Reads a toplevel: its bootspec, or its other files if it is too old to have one.
///
/// # Errors
///
/// A path that is no toplevel in the store, or a system that firn cannot boot from memory.
pub fn read(path: &Path) -> Result<NixosSystem> {
    let toplevel = in_store(path, "the toplevel of a NixOS system")?;
    let Start { kind, interpreter } = start(&toplevel)?;
    let spec = bootspec(&toplevel)?;
    let image = read_or(&spec.kernel, || {
        format!(
            "{} has no kernel: {} is missing; build it with boot.kernel.enable = true",
            toplevel.display(),
            spec.kernel.display()
        )
    })?;
    let (kernel_release, modules) = release_and_modules(&toplevel, &image)?;
    let etc_overlay = etc_overlay::of(&toplevel, kind, &kernel_release)?;
    ensure!(
        at_least(&kernel_release, LEAST) != Some(false),
        "{} has the kernel {kernel_release}, and stage 1 of firn needs Linux {}.{} or newer; build it with a newer kernel \
         (boot.kernelPackages)",
        toplevel.display(),
        LEAST.0,
        LEAST.1
    );
    ensure!(
        spec.init == toplevel.join("init"),
        "the boot.json of {} names the init {}, which is not its own; build the system again",
        toplevel.display(),
        spec.init.display()
    );
    Ok(NixosSystem {
        init: spec.init.to_string_lossy().into_owned(),
        kernel: spec.kernel,
        kernel_release,
        kernel_params: spec.kernel_params,
        modules,
        modprobe: modprobe::read(&toplevel)?,
        firmware: Some(toplevel.join("firmware")).filter(|directory| directory.is_dir()),
        label: spec.label,
        platform: spec.system,
        host_id: host_id(&toplevel)?,
        kind,
        interpreter,
        etc_overlay,
        toplevel,
    })
}

/// Reads a file of a system. `missing` is the error if there is no such file.
fn read_or(path: &Path, missing: impl FnOnce() -> String) -> Result<Vec<u8>> {
    match file::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(missing()),
        other => other.with_context(|| {
            format!("reading {}; run firn as a user who may read it, or build the system again", path.display())
        }),
    }
}

/// The work that the system expects from stage 1, and the interpreter of its init.
fn start(toplevel: &Path) -> Result<Start> {
    let init = read_or(&toplevel.join("init"), || {
        format!(
            "{} has no init: it is no NixOS system; give the path that nixos-rebuild build or \
             config.system.build.toplevel makes",
            toplevel.display()
        )
    })?;
    let kind = Kind::of_toplevel(toplevel.join("prepare-root").exists(), &init);
    Ok(Start { kind, interpreter: Kind::interpreter(&init) })
}

/// Follows symlinks to a path directly below the store. `wanted` describes this path in errors, such as `the toplevel of a NixOS system`.
///
/// # Errors
///
/// A path that does not exist, is not in the store, or lies inside of a store path.
pub fn in_store(path: &Path, wanted: &str) -> Result<PathBuf> {
    let real = path.canonicalize().with_context(|| match fs::read_link(path) {
        Ok(target) => format!("{} leads to {}, which cannot be found; give {wanted}", path.display(), target.display()),
        Err(_) => format!("cannot find {}; give {wanted}", path.display()),
    })?;
    let Ok(inside) = real.strip_prefix(STORE) else {
        bail!("{} is not in the Nix store {STORE}; give {wanted}, as Nix prints it after a build", real.display());
    };
    let mut components = inside.components();
    match (components.next(), components.next()) {
        (Some(name), None) => Ok(Path::new(STORE).join(name)),
        (Some(name), Some(_)) => {
            let name = Path::new(&name).display();
            bail!("{} lies inside a store path; give {wanted}, such as {STORE}/{name}", real.display())
        }
        (None, _) => bail!("{} is the whole store; give {wanted}, a path in it", real.display()),
    }
}

/// Makes sure that a system without a bootspec has the files that are read instead. That of a container has neither a bootspec nor a kernel
/// (nixpkgs, `nixos/modules/system/activation/top-level.nix`).
fn ensure_files(toplevel: &Path) -> Result<()> {
    let has = |name: &str| {
        ensure!(
            fs::metadata(toplevel.join(name)).is_ok_and(|found| found.len() > 0 || name == "kernel-params"),
            "{} has neither a boot.json nor the file {name} of an older NixOS system; give the path that nixos-rebuild build makes",
            toplevel.display()
        );
        Ok(())
    };
    has("nixos-version")?;
    has("system")?;
    let kernel = toplevel.join("kernel");
    match fs::read_link(&kernel) {
        _ if kernel.exists() => {}
        Ok(target) => bail!(
            "{} leads to {}, which is missing; repair the store with nix-store --verify --check-contents --repair",
            kernel.display(),
            target.display()
        ),
        Err(_) => bail!(
            "{} has no kernel, as a container, which runs under the kernel of its host; build it with boot.isContainer = false and \
             boot.kernel.enable = true",
            toplevel.display()
        ),
    }
    has("kernel-modules/lib/modules")?;
    has("kernel-params")
}

fn bootspec(toplevel: &Path) -> Result<BootSpecV1> {
    let path = toplevel.join(JSON_FILENAME);
    let (document, from_files): (BootJson, bool) = match file::read(&path) {
        Ok(json) => serde_json::from_slice(&json).map(|document| (document, false)).with_context(|| {
            format!(
                "{} is not a bootspec of version 1 (RFC 125); build the system with NixOS 23.05 or newer",
                path.display()
            )
        })?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            ensure_files(toplevel)?;
            let document = BootJson::synthesize_latest(toplevel).map_err(|error| {
                let error = anyhow::Error::from(error);
                // Each error of the chain has the text of those below it.
                let reason =
                    error.chain().collect::<Vec<_>>().into_iter().rev().take(2).last().map(ToString::to_string);
                anyhow!(
                    "{} has no boot.json, and its other files cannot be read: {}; build the system again",
                    toplevel.display(),
                    reason.unwrap_or_default()
                )
            })?;
            (document, true)
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    match document.generation {
        Generation::V1(generation) => {
            let mut spec = generation.bootspec;
            if from_files {
                // The file kernel-params is a command line, and was split at each space, also between quotes.
                let mut quoted = false;
                let ends = |character| {
                    quoted ^= character == '"';
                    !quoted && character == ' '
                };
                spec.kernel_params = spec.kernel_params.join(" ").trim_end().split(ends).map(Into::into).collect();
            }
            Ok(spec)
        }
        _ => bail!(
            "the bootspec {} has another version than 1, and this version of firn cannot read it; use a newer firn",
            path.display()
        ),
    }
}

/// The host id that the system has in its `/etc/hostid`: four bytes, the lowest first (nixpkgs, `tasks/network-interfaces.nix`).
fn host_id(toplevel: &Path) -> Result<Option<String>> {
    let path = toplevel.join("etc/hostid");
    match file::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        Ok(bytes) => {
            let bytes: [u8; 4] = bytes.try_into().map_err(|_| {
                anyhow!("{} does not have the four bytes of a host id: build the system again", path.display())
            })?;
            Ok(Some(format!("{:08x}", u32::from_le_bytes(bytes))))
        }
    }
}

/// The kernel's release and the directory of its modules. On x86 the release is in the kernel image; elsewhere it is the name of
/// the directory.
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
            "{} has modules for {}, and the release of the kernel is {}: they do not belong together; build the system again",
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

    fn system(params: &[&str]) -> NixosSystem {
        NixosSystem {
            toplevel: "/nix/store/x".into(),
            init: "/nix/store/x/init".into(),
            kernel: "/nix/store/k/bzImage".into(),
            kernel_release: "6.1".into(),
            kernel_params: params.iter().map(|parameter| (*parameter).into()).collect(),
            modules: None,
            modprobe: ModprobeConfig::default(),
            firmware: None,
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
        let cmdline = |params: &[&str]| system(params).cmdline().unwrap().to_string();
        assert_eq!(cmdline(&["quiet", "panic=1"]), "init=/nix/store/x/init rootfstype=ramfs quiet panic=1");
        assert_eq!(cmdline(&["rootfstype=tmpfs"]), "init=/nix/store/x/init rootfstype=tmpfs");
        for params in [&[][..], &["rootfstype=ramfs"], &["rootfstypes"]] {
            let cmdline = format!("{} ", cmdline(params));
            assert_eq!(cmdline.matches(" rootfstype=ramfs ").count(), 1, "{cmdline}");
        }
    }

    #[test]
    fn c_4_the_words_for_stage_1_come_first() {
        let params = [
            "quiet",
            "firn.root.size=4g",
            "a=b c",
            "rootfstype=ramfs",
            "retain_initrd",
            "init=/bin/sh",
            "firn.log=debug",
        ];
        assert_eq!(
            system(&params).cmdline().unwrap().to_string(),
            "init=/nix/store/x/init firn.root.size=4g rootfstype=ramfs retain_initrd firn.log=debug quiet a=\"b c\" init=/bin/sh"
        );
    }

    #[test]
    fn c_5_words_for_init_come_last() {
        assert_eq!(
            system(&["quiet", "--", "single", "rootfstype=x"]).cmdline().unwrap().to_string(),
            "init=/nix/store/x/init rootfstype=ramfs quiet -- single rootfstype=x"
        );
        let error = format!("{:#}", system(&["quiet", "a=b\nc"]).cmdline().unwrap_err());
        assert!(
            error.contains("boot.kernelParams of /nix/store/x do not fit")
                && error.contains("a=b\\nc has a control character"),
            "{error}"
        );
    }

    #[test]
    fn paths_that_are_no_toplevel() {
        for (path, expected) in [("/nonexistent/system", "cannot find"), ("/usr", "is not in the Nix store")] {
            let error = format!("{:#}", read(Path::new(path)).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
