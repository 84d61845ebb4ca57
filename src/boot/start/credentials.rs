//! The files that systemd-stub adds to the ramdisk of a unified kernel image, below [`SOURCE`] (`man 7 systemd-stub`): credentials from
//! the EFI system partition, and facts about the image. The running system gets them where a systemd in the ramdisk would put them.
//!
//! The rules for credentials are those of `import_credentials_boot` (systemd, src/core/import-creds.c), the places of the other files
//! those of `tmpfiles.d/20-systemd-stub.conf`. One rule is stricter: a symlink is not followed.

use crate::boot::kernel::file;
use crate::boot::kernel::mount::make_directory;
use crate::boot::start::units::{link, warn};
use crate::boot::store::NewRoot;
use crate::formats::cmdline::CommandLine;
use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

const SOURCE: &str = "/.extra";

/// The directories: credentials of one image, credentials of all images, and the other files. Of two credentials with one name the first
/// counts.
const DIRECTORIES: [&str; 3] = ["/.extra/credentials", "/.extra/global_credentials", SOURCE];

/// The directory of encrypted credentials.
const ENCRYPTED: &str = "/run/credentials/@encrypted";

/// The maximum size of all credentials together, and of all other files, bytes.
const LIMIT: u64 = 1 << 20;

/// A configuration directory of systemd, and the name of [`ENCRYPTED`] for its generators and its units. A variable of the init does not
/// do: a script may clear the environment.
const CONFIGURATION: &str = "/run/systemd/system.conf.d";
const VARIABLE: &[u8] = b"[Manager]\nManagerEnvironment=ENCRYPTED_CREDENTIALS_DIRECTORY=/run/credentials/@encrypted\n";

/// Another directory in which units find encrypted credentials (`man 5 systemd.exec`).
const STORE: &str = "/run/credstore.encrypted";

/// The start of a credential in the tables of a machine's firmware.
const WORD: &[u8] = b"io.systemd.credential";

/// Copies the files to `/run`, which the initramfs and the new root share. A ramdisk without them is fine. A file that is not copied is
/// a warning with its name. A file that an earlier attempt has copied stays.
///
/// # Errors
///
/// As for [`NewRoot::inside`].
pub fn copy_all(root: &NewRoot, cmdline: &CommandLine) -> Result<()> {
    if fs::symlink_metadata(SOURCE).is_err() {
        return Ok(());
    }
    let mut left = LIMIT;
    for directory in DIRECTORIES {
        if directory == SOURCE {
            left = LIMIT;
        }
        for file in files(directory) {
            let source = format!("{directory}/{file}");
            if let Err(error) = copy(&source, &file, directory == SOURCE, &mut left) {
                warn(&source, &error);
            }
        }
    }
    let names = files(ENCRYPTED);
    if names.is_empty() {
        return Ok(());
    }
    log::info!("Credentials in {ENCRYPTED}: {}", names.join(" "));
    root.inside(|| {
        if let Err(error) = tell(&names, cmdline).and_then(|()| protect()) {
            warn(ENCRYPTED, &error);
        }
        Ok(())
    })
}

/// The names of the files in a directory. A symlink to a directory is not followed.
fn files(directory: &str) -> Vec<String> {
    let mut files = Vec::new();
    if fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir())
        && let Ok(mut entries) = fs::read_dir(directory)
    {
        while let Some(Ok(entry)) = entries.next() {
            files.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    files
}

/// Copies a file of at most `left` bytes to its place, and reduces `left` by its size.
fn copy(source: &str, file: &str, is_other: bool, left: &mut u64) -> Result<()> {
    let found = fs::symlink_metadata(source)?;
    let (directory, name, mode) = match file {
        "credentials" | "global_credentials" if is_other && found.is_dir() => return Ok(()),
        "boot-secret" if is_other => ("/run/systemd/stub", file, 0o400),
        "os-release" | "profile" if is_other => ("/run/systemd/stub", file, 0o444),
        "tpm2-pcr-public-key.pem" | "tpm2-pcr-signature.json" if is_other => ("/run/systemd", file, 0o444),
        _ if is_other => bail!("it is for a systemd in the ramdisk, or newer than this firn"),
        _ => (ENCRYPTED, credential_name(file)?, 0o400),
    };
    ensure!(found.is_file(), "it is not a regular file");
    ensure!(found.len() <= *left, "it is too large: there is room for 1 MiB in all");
    make_directory(directory)?;
    let directory_mode = if directory == ENCRYPTED { 0o700 } else { 0o755 };
    fs::set_permissions(directory, Permissions::from_mode(directory_mode))?;
    let target = &format!("{directory}/{name}");
    if fs::symlink_metadata(target).is_ok() {
        return Ok(());
    }
    fs::read(source)
        .and_then(|bytes| fs::write(target, bytes))
        .and_then(|()| fs::set_permissions(target, Permissions::from_mode(mode)))
        .inspect_err(|_| fs::remove_file(target).unwrap_or_default())?;
    *left -= found.len();
    Ok(())
}

/// The name of the credential in a file: printable ASCII without a colon.
fn credential_name(file: &str) -> Result<&str> {
    let is_valid = |name: &&str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b':')
    };
    let name = file.strip_suffix(".cred").filter(is_valid);
    name.context("it is not named NAME.cred, with a NAME of ASCII without a colon")
}

/// Tells systemd about these credentials. If there may be others, which it imports by itself, it must not get the variable, or it
/// imports none of them.
fn tell(names: &[String], cmdline: &CommandLine) -> Result<()> {
    if !has_others(cmdline) {
        make_directory(CONFIGURATION)?;
        return file::replace("/run/systemd/system.conf.d/firn-credentials.conf", VARIABLE);
    }
    make_directory(STORE)?;
    names.iter().try_for_each(|name| link(&format!("{ENCRYPTED}/{name}"), &format!("{STORE}/{name}")))
}

/// Whether there may be credentials on the command line, in the tables of the firmware (SMBIOS), or from QEMU. Those of QEMU take the
/// module `qemu_fw_cfg`, which systemd loads.
fn has_others(cmdline: &CommandLine) -> bool {
    let exists = |path: &str| fs::symlink_metadata(path).is_ok();
    // Many machines have no such table.
    let smbios = fs::read("/sys/firmware/dmi/tables/DMI").unwrap_or_default();
    cmdline
        .iter()
        .any(|(key, _)| key.starts_with("systemd.set_credential") || key.starts_with("systemd.set-credential"))
        || smbios.windows(WORD.len()).any(|bytes| bytes == WORD)
        || exists("/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials")
        || exists("/sys/bus/acpi/devices/QEMU0002:00") && !exists("/sys/firmware/qemu_fw_cfg")
}

/// Makes the directory of credentials read-only.
fn protect() -> Result<()> {
    // An earlier attempt has done it.
    while unmount(ENCRYPTED, UnmountFlags::DETACH).is_ok() {}
    mount_bind(ENCRYPTED, ENCRYPTED)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount_remount(ENCRYPTED, flags, "")?)
}
