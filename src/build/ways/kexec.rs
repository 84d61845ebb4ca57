//! The directory from which a running Linux boots a system by kexec, and a tarball of it, as `kexecTree` and `kexecTarball` of
//! nixpkgs.

use crate::build::ways::build_directory::BuildDirectory;
use crate::build::ways::limits::{KEXEC_ROOM, Loader};
use crate::contract::file_name;
use crate::contract::manifest::{self, FileEntry};
use crate::contract::parameters::LONGEST_LINE;
use crate::formats::digest::{copy, sha256};
use crate::host::progress::Progress;
use anyhow::{Context, Result, ensure};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

/// The script, with placeholders between `@` for the values of a system.
const SCRIPT: &str = include_str!("kexec-boot.sh");

/// zstd level of the tarball. Nearly all its contents are compressed already.
const LEVEL: i32 = 10;

/// Makes a directory with `bzImage`, `initrd.gz` (the name in nixpkgs, for any compression), `kexec-boot`, and a manifest of these.
///
/// # Errors
///
/// A damaged build, and those of writing.
pub fn tree(build: &BuildDirectory, out: &Path, progress: Progress) -> Result<Vec<FileEntry>> {
    let ramdisk = build.one_ramdisk(true)?;
    let linked = [("bzImage", "bzImage"), ("initrd", "initrd.gz")];
    let linked = if ramdisk.zero_copy.is_some() { &linked[..1] } else { &linked };
    let mut output = build.output(out, "kexec", linked, progress)?;
    if ramdisk.zero_copy.is_some() {
        output.write_with("initrd.gz", ramdisk.ramdisk.private, |out| {
            let step = progress.step("Copying the ramdisk", ramdisk.bytes());
            copy(step.reading(ramdisk.open()?), out)?;
            step.done();
            Ok(())
        })?;
    }
    output.write("kexec-boot", |out| Ok(out.write_all(script(build)?.as_bytes())?))?;
    let executable = Permissions::from_mode(0o755);
    fs::set_permissions(output.staged("kexec-boot"), executable).context("making kexec-boot executable")?;
    let manifest = build.manifest_of_tree("kexec", output.entries())?;
    output.write(manifest::FILE, |out| Ok(out.write_all(manifest.as_bytes())?))?;
    output.publish()
}

/// Makes a tarball of the same files, in the directory `prefix` if it is not empty: the file `out`, or
/// `nixos-kexec-<label>-<system>.tar.zst` in the directory `out`.
///
/// # Errors
///
/// Those of [`tree`], and a prefix that is no relative path without `..`.
pub fn tarball(build: &BuildDirectory, out: &Path, prefix: &str, progress: Progress) -> Result<Vec<FileEntry>> {
    let is_name = |part| matches!(part, Component::Normal(name) if name.len() <= file_name::LONGEST);
    ensure!(
        Path::new(prefix).components().all(is_name) && !prefix.contains(char::is_control),
        "\"{prefix}\" is not a name for a directory in a tarball; give one such as --prefix nixos"
    );
    let member = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    let default = format!("nixos-kexec-{}-{}.tar.zst", named(&build.manifest.label), build.manifest.system);
    let (mut output, name) = build.file_output(out, &default)?;
    let (kernel, ramdisk) = (build.kernel()?, build.one_ramdisk(true)?);
    let script = script(build)?;
    let (bytes, digest) = sha256(script.as_bytes())?;
    let files = [
        build.described("bzImage", "bzImage")?,
        if ramdisk.zero_copy.is_none() {
            build.described("initrd", "initrd.gz")?
        } else {
            let (bytes, sha256) = sha256(ramdisk.open()?)?;
            FileEntry { name: "initrd.gz".into(), bytes, sha256 }
        },
        FileEntry { name: "kexec-boot".into(), bytes, sha256: digest },
    ];
    let manifest = build.manifest_of_tree("kexec", &files)?;
    output.write_with(&name, ramdisk.ramdisk.private, |out| {
        let step = progress.step("Packing the tarball", kernel.bytes + ramdisk.bytes());
        let mut archive = tar::Builder::new(zstd::Encoder::new(out, LEVEL)?);
        append(&mut archive, &member("bzImage"), 0o644, kernel.bytes, step.reading(kernel.open()?))?;
        // It may hold keys. The mode is always this one: the tarball must not depend on the umask of the build.
        append(&mut archive, &member("initrd.gz"), 0o600, ramdisk.bytes(), step.reading(ramdisk.open()?))?;
        append(&mut archive, &member("kexec-boot"), 0o755, bytes, script.as_bytes())?;
        append(&mut archive, &member(manifest::FILE), 0o644, manifest.len() as u64, manifest.as_bytes())?;
        archive.into_inner()?.finish()?;
        step.done();
        Ok(())
    })?;
    output.publish()
}

/// Appends a file, with the owner root and the time 1 like everything in a Nix store.
fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    mode: u32,
    bytes: u64,
    contents: impl Read,
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(bytes);
    archive.append_data(&mut header, name, contents).with_context(|| format!("packing {name}"))
}

/// The script for one system.
fn script(build: &BuildDirectory) -> Result<String> {
    let line = build.cmdline("", Loader::Kexec)?;
    let (words, variables) = build.left(&line)?;
    let label: String = build.manifest.label.chars().filter(|c| !c.is_control()).collect();
    let values = [
        ("label", quoted(&label)),
        ("for_kernel", quoted(&line.for_kernel().join(" "))),
        ("for_init", quoted(&line.for_init().join(" "))),
        ("longest", (LONGEST_LINE - KEXEC_ROOM).to_string()),
        ("words", words.to_string()),
        ("variables", variables.to_string()),
        ("bytes", build.one_ramdisk(true)?.bytes().to_string()),
    ];
    Ok(filled(SCRIPT, &values))
}

/// A text with values instead of the names between two `@`. Values are not looked into.
fn filled(text: &str, values: &[(&str, String)]) -> String {
    let mut parts = text.split('@');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    let mut was_value = false;
    for part in parts {
        match values.iter().find(|(name, _)| *name == part) {
            Some((_, value)) if !was_value => {
                filled += value;
                was_value = true;
            }
            _ => {
                filled.extend((!was_value).then_some('@'));
                filled += part;
                was_value = false;
            }
        }
    }
    filled
}

/// Quotes a text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A label as a part of a file name that needs no quotes in a shell. A long one is cut: the whole name must not be too long.
fn named(label: &str) -> String {
    let parts = label.split(|c: char| !(c.is_ascii_alphanumeric() || "._+-".contains(c)));
    let mut name = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    name.truncate(file_name::LONGEST / 2);
    name
}

#[cfg(test)]
mod tests {
    mod words;

    use super::*;
    use crate::build::ways::build_directory::tests::sample;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    /// The shells that the machines have.
    const SHELLS: [&[&str]; 4] = [&["/bin/dash"], &["/bin/bash"], &["/bin/bash", "--posix"], &["/bin/busybox", "sh"]];

    /// A machine for the script: the files of the kernel, and programs that only print their arguments.
    struct Machine {
        directory: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let machine = Self { directory: tempfile::tempdir().unwrap() };
            fs::create_dir(machine.path("build")).unwrap();
            let build = sample(&machine.path("build"), "NixOS it's (6.9)", "init=/x a=\"b c\" it's", "firn-init");
            tree(&build, &machine.path("tree"), Progress::Quiet).unwrap();
            machine.file("sys/kernel/kexec_loaded", "0").file("proc/sys/kernel/kexec_load_disabled", "0");
            machine.file("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   81920 kB\n");
            machine.program("id", "echo 0").program("sync", "").program("kexec", "printf '<%s>' kexec \"$@\"; echo");
            for tool in ["cat", "dirname", "readlink", "sed", "wc"] {
                symlink(format!("/usr/bin/{tool}"), machine.path("bin").join(tool)).unwrap();
            }
            // The script of the tree, with the paths of this machine.
            let script = fs::read_to_string(machine.path("tree/kexec-boot")).unwrap();
            let here = |path: &str| format!(" {}{path}", machine.path("").display());
            let script = ["proc/", "sys/", "run/"]
                .iter()
                .fold(script, |script, path| script.replace(&format!(" /{path}"), &here(path)));
            fs::write(machine.path("tree/kexec-boot"), script).unwrap();
            machine
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join(name)
        }

        fn file(&self, name: &str, contents: &str) -> &Self {
            fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            fs::write(self.path(name), contents).unwrap();
            self
        }

        fn program(&self, name: &str, script: &str) -> &Self {
            let path = format!("bin/{name}");
            self.file(&path, &format!("#!/bin/sh\n{script}\n"));
            fs::set_permissions(self.path(&path), Permissions::from_mode(0o755)).unwrap();
            self
        }

        fn without(&self, name: &str) -> &Self {
            fs::remove_file(self.path(name)).unwrap();
            self
        }

        /// Runs the script in a shell with these arguments. Returns its output on success, and its errors on failure.
        fn run(&self, shell: &[&str], arguments: &[&str]) -> Result<String, String> {
            let output = Command::new(shell[0])
                .args(&shell[1..])
                .arg(self.path("tree/kexec-boot"))
                .args(arguments)
                .env("PATH", self.path("bin"))
                .output()
                .unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
        }
    }

    #[test]
    fn the_script_boots_in_every_shell() {
        let machine = Machine::new();
        let tree = machine.path("tree");
        for shell in SHELLS {
            let said = machine.run(shell, &["--force", "quiet", "x=1"]).unwrap();
            let expected = format!(
                "<kexec><--load><{0}/bzImage><--initrd={0}/initrd.gz><--command-line=init=/x a=\"b c\" it's quiet x=1>\n\
                 kexec-boot: booting NixOS it's (6.9)\n<kexec><--exec>\n",
                tree.canonicalize().unwrap().display()
            );
            assert_eq!(said, expected, "{shell:?}");
        }
    }

    #[test]
    fn the_script_finds_its_files_through_links() {
        let machine = Machine::new();
        symlink(machine.path("tree/kexec-boot"), machine.path("link")).unwrap();
        fs::create_dir(machine.path("else where")).unwrap();
        symlink("../link", machine.path("else where/boot")).unwrap();
        let boot = machine.path("else where/boot");
        let output = Command::new(&boot).current_dir("/").env("PATH", machine.path("bin")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("<--load><{}/bzImage>", machine.path("tree").display())), "{output:?}");
    }

    #[test]
    fn a_directory_of_symlinks_works_too() {
        let machine = Machine::new();
        fs::create_dir(machine.path("farm")).unwrap();
        for (name, file) in [("kexec-boot", "tree/kexec-boot"), ("bzImage", "bzImage"), ("initrd.gz", "initrd.gz")] {
            if !machine.path(file).exists() {
                fs::copy(machine.path("tree").join(file), machine.path(file)).unwrap();
            }
            symlink(machine.path(file), machine.path("farm").join(name)).unwrap();
        }
        machine.without("tree/bzImage");
        let output = Command::new(machine.path("farm/kexec-boot")).env("PATH", machine.path("bin")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("<--load><{}/bzImage>", machine.path("farm").display())), "{output:?}");
    }

    #[test]
    fn the_script_only_loads_on_request() {
        let machine = Machine::new();
        let said =
            machine.run(&["/bin/sh"], &["--load-only", "--kexec-flags", "--no-checks --debug", "quiet"]).unwrap();
        assert!(said.starts_with("<kexec><--no-checks><--debug><--load>"), "{said}");
        assert!(said.ends_with(" quiet>\n") && said.lines().count() == 1, "{said}");
        let error = machine.run(&["/bin/sh"], &["--kexec-flags"]).unwrap_err();
        assert!(error.contains("needs options for kexec"), "{error}");
    }

    #[test]
    fn the_script_leaves_the_reboot_to_systemd() {
        let machine = Machine::new();
        machine.program("systemctl", "printf '<%s>' systemctl \"$@\"").file("run/systemd/system/x", "");
        let said = machine.run(&["/bin/sh"], &[]).unwrap();
        assert!(said.ends_with("<systemctl><kexec>") && !said.contains("--exec"), "{said}");
    }

    #[test]
    fn a_locked_down_kernel_checks_the_file() {
        let machine = Machine::new();
        for (lockdown, expected) in
            [("[none] integrity confidentiality", false), ("none [integrity] confidentiality", true)]
        {
            machine.file("sys/kernel/security/lockdown", lockdown);
            let said = machine.run(&["/bin/sh"], &[]).unwrap();
            assert_eq!(said.contains("<kexec><--kexec-file-syscall><--load>"), expected, "{said}");
        }
        machine.program("kexec", "exit 1");
        let error = machine.run(&["/bin/sh"], &[]).unwrap_err();
        assert!(error.contains("locked down") && error.contains("Secure Boot off"), "{error}");
    }

    #[test]
    fn everything_missing_is_reported() {
        type Case<'a> = (fn(&Machine) -> &Machine, &'a [&'a str], &'a [&'a str]);
        let long = "x".repeat(2048);
        let cases: [Case; 11] = [
            (|m| m.program("id", "echo 1000"), &[], &["needs root", "sudo"]),
            (|m| m.without("bin/kexec"), &[], &["install the package kexec-tools"]),
            (|m| m.without("tree/bzImage"), &[], &["bzImage is missing", "unpack the whole tarball"]),
            (|m| m.without("sys/kernel/kexec_loaded"), &[], &["CONFIG_KEXEC"]),
            (|m| m.file("proc/sys/kernel/kexec_load_disabled", "1"), &[], &["kernel.kexec_load_disabled", "reboot"]),
            (|m| m.file("proc/meminfo", "MemAvailable: 81919 kB\n"), &[], &["79 MiB", "needs 80", "--force"]),
            (|m| m.file("proc/meminfo", "MemTotal: 9 kB\n"), &[], &["0 MiB", "--force"]),
            (|m| m.program("kexec", "exit 1"), &[], &["refused", "dmesg"]),
            (|m| m, &["--nonsense"], &["unknown option --nonsense", "--help"]),
            (|m| m, &[&long], &["bytes, and kexec loads a kernel with at most 2016"]),
            (
                |m| {
                    m.file(
                        "tree/kexec-boot",
                        &fs::read_to_string(m.path("tree/kexec-boot")).unwrap().replacen("bytes=", "bytes=9", 1),
                    )
                },
                &[],
                &["is truncated: copy it again"],
            ),
        ];
        for (prepare, arguments, expected) in cases {
            let machine = Machine::new();
            let error = prepare(&machine).run(&["/bin/sh"], arguments).unwrap_err();
            for words in expected {
                assert!(error.contains(words), "no {words:?} in: {error}");
            }
        }
        let machine = Machine::new();
        machine.file("proc/meminfo", "MemAvailable: 1 kB\n").run(&["/bin/sh"], &["--force"]).unwrap();
    }

    #[test]
    fn a_foreign_reader_finds_nothing_in_the_script() {
        let machine = Machine::new();
        let script = machine.path("tree/kexec-boot");
        let output = Command::new("shellcheck").arg(&script).output().expect("shellcheck; run qemu/setup");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    fn a_foreign_reader_unpacks_the_tarball() {
        let directory = tempfile::tempdir().unwrap();
        let build = sample(directory.path(), "NixOS 26.05 (Linux 6.9)", "init=/x", "firn-init");
        let files = tarball(&build, directory.path(), "", Progress::Quiet).unwrap();
        assert_eq!(files[0].name, "nixos-kexec-NixOS-26.05-Linux-6.9-x86_64-linux.tar.zst");
        let path = directory.path().join(&files[0].name);
        let list = "zstd --decompress --stdout \"$0\" | TZ=UTC tar --list --verbose --full-time --numeric-owner";
        let output = Command::new("sh").args(["-c", list]).arg(&path).output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        let expected = [
            ("-rw-r--r--", "bzImage"),
            ("-rw-------", "initrd.gz"),
            ("-rwxr-xr-x", "kexec-boot"),
            ("-rw-r--r--", "manifest.json"),
        ];
        for (line, (mode, name)) in lines.iter().zip(expected) {
            assert_eq!([line[0], line[1], line[3], line[4], line[5]], [mode, "0/0", "1970-01-01", "00:00:01", name]);
        }
        assert_eq!(lines.len(), 4);
        let long = "x".repeat(300);
        assert!(named(&long).len() < 150 && long.starts_with(&named(&long)));
        let first = fs::read(&path).unwrap();
        tarball(&build, &path, "", Progress::Quiet).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        tarball(&build, &path, "nixos/kexec", Progress::Quiet).unwrap();
        let output = Command::new("tar").arg("--list").arg("--zstd").arg("--file").arg(&path).output().unwrap();
        assert_eq!(
            output.stdout,
            b"nixos/kexec/bzImage\nnixos/kexec/initrd.gz\nnixos/kexec/kexec-boot\nnixos/kexec/manifest.json\n",
            "{output:?}"
        );
        for prefix in ["/nixos", "..", "nixos/../..", "./nixos", "a\nb", &"x".repeat(256)] {
            let error = tarball(&build, &path, prefix, Progress::Quiet).unwrap_err().to_string();
            assert!(error.contains("is not a name for a directory in a tarball"), "{error}");
        }
    }
}
