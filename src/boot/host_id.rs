//! The host id. Modules such as ZFS read it from `/etc/hostid` when they are loaded.

use crate::boot::console::consoles;
use crate::boot::kernel::file;
use crate::boot::kernel::mount::make_directory;
use crate::boot::parameters::options::Options;
use crate::boot::plan::BootPlan;
use crate::contract::plan::FILES;
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The file that programs and modules read: four bytes in the byte order of the machine (`man 3 gethostid`, glibc).
const PATH: &str = "/etc/hostid";

/// Writes the host id into the initramfs, as NixOS' scripted stage 1 does. It comes from the command line, or from the files of the
/// host, or from the initramfs itself (its secrets), or from the plan, in this order. A host id from the command line becomes a file of
/// the host, so that the running system gets it, too.
///
/// A file that cannot be read is a warning, and there is no host id then: that of the plan is the same on each host with this ramdisk,
/// and ZFS would take the pool of another host for one of its own. Without a host id it refuses such a pool.
///
/// # Errors
///
/// A file that cannot be written.
pub fn set(options: &Options, plan: &BootPlan) -> Result<()> {
    let of_host = format!("{FILES}{PATH}");
    if let Some(id) = options.host_id {
        write(&of_host, &id.to_ne_bytes())?;
    }
    for path in [of_host.as_str(), PATH] {
        match read(path) {
            Ok(None) => {}
            Ok(Some(id)) => return write(PATH, &id),
            Err(error) => {
                let warning = format!(
                    "Reading the host id {path}: {error:#}. Stage 1 has no host id now, so that it does not take that of another host; \
                     make the file again (zgenhostid writes it), or add firn.hostid= to the kernel command line"
                );
                log::warn!("{warning}");
                consoles::say(&format!("\n  firn-init: {warning}\n\n"));
                // An empty file, so that another attempt does not take the host id of the plan.
                return write(PATH, &[]);
            }
        }
    }
    plan.host_id.map_or(Ok(()), |id| write(PATH, &id.to_ne_bytes()))
}

/// The bytes of a host id; `None` if the file does not exist.
fn read(path: &str) -> Result<Option<[u8; 4]>> {
    match file::check(path).and_then(|()| fs::read(path)) {
        Ok(bytes) => {
            let length = bytes.len();
            let id = bytes.try_into().ok().with_context(|| format!("it has {length} bytes, and a host id has four"))?;
            Ok(Some(id))
        }
        // A symlink that leads nowhere is a file that cannot be read.
        Err(_) if fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write(path: &str, bytes: &[u8]) -> Result<()> {
    make_directory(Path::new(path).parent().unwrap_or(Path::new("/")))?;
    file::replace(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{enter_initramfs, in_namespaces};
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::symlink;

    const OF_HOST: &str = "/firn/root/etc/hostid";

    /// Makes something at a path.
    type Make = fn(&str);

    /// Runs the step with a host id on the command line and in the plan. Returns the bytes of `/etc/hostid`.
    fn set_to(command_line: Option<u32>, plan: Option<u32>) -> Option<Vec<u8>> {
        let options = Options { host_id: command_line, ..Options::default() };
        set(&options, &BootPlan { host_id: plan, ..BootPlan::default() }).unwrap();
        fs::read(PATH).ok()
    }

    #[test]
    fn b_1_a_host_id_that_cannot_be_read_is_not_replaced_by_that_of_another_host() {
        in_namespaces(
            module_path!(),
            "b_1_a_host_id_that_cannot_be_read_is_not_replaced_by_that_of_another_host",
            || {
                let root = tempfile::tempdir().unwrap();
                enter_initramfs(root.path(), &[]);
                let (plan, bytes) = (Some(7), |id: u32| Some(id.to_ne_bytes().to_vec()));
                assert_eq!((set_to(None, None), set_to(None, plan)), (None, bytes(7)));
                let broken: [(&str, Make); 6] = [
                    ("a directory", |path| fs::create_dir_all(format!("{path}/x")).unwrap()),
                    ("a pipe", |path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap()),
                    ("a symlink that leads nowhere", |path| symlink("/persist/hostid", path).unwrap()),
                    ("an empty file", |path| fs::write(path, "").unwrap()),
                    ("a file with text", |path| fs::write(path, "deadbeef\n").unwrap()),
                    // There is no memory at address 0: EIO.
                    ("a read error", |path| symlink("/proc/self/mem", path).unwrap()),
                ];
                fs::create_dir("/proc").unwrap();
                sys_mount::Mount::builder().fstype("proc").mount("proc", "/proc").unwrap();
                for path in [OF_HOST, PATH] {
                    for (name, make) in &broken {
                        fs::create_dir_all("/firn/root/etc").unwrap();
                        file::remove(Path::new(path)).unwrap();
                        make(path);
                        // Also in another attempt.
                        for _ in 0..2 {
                            assert_eq!(set_to(None, plan), Some(vec![]), "{path} is {name}");
                        }
                        file::remove(Path::new(path)).unwrap();
                        make(path);
                        // The command line decides, whatever is there.
                        assert_eq!(set_to(Some(8), plan), bytes(8), "{path} is {name}");
                        file::remove(Path::new(OF_HOST)).unwrap();
                    }
                }
                fs::write(OF_HOST, 9_u32.to_ne_bytes()).unwrap();
                assert_eq!((set_to(None, plan), set_to(Some(8), plan)), (bytes(9), bytes(8)));
                // The running system gets it.
                assert_eq!(fs::read(OF_HOST).ok(), bytes(8));
            },
        );
    }

    #[test]
    fn b_1_the_reason_names_the_length_of_a_host_id() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "deadbeef\n").unwrap();
        let error = read(file.path().to_str().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "it has 9 bytes, and a host id has four");
    }
}
