//! The programs of the ramdisk, checked: with a dynamically linked PID 1 the kernel panics without giving the reason, since the
//! ramdisk has no loader.

use crate::host::file;
use anyhow::{Context, Result, bail, ensure};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Architecture, Endianness, Object, elf};
use std::path::{Path, PathBuf};

/// Finds the firn-init that belongs to the program `firn`: the one that cargo built for musl, if firn lies in a target directory of
/// cargo; or else the file beside firn. `machine` is the processor, such as `x86_64`.
///
/// # Errors
///
/// No firn-init in these places.
pub fn find_firn_init(firn: &Path, machine: &str) -> Result<PathBuf> {
    let built = format!("{machine}-unknown-linux-musl/release/firn-init");
    // target/release/firn, or target/TRIPLE/release/firn. cargo marks its directories, also that of a TRIPLE: the outer one counts.
    let directories = firn.ancestors().skip(2).take(2).filter(|directory| directory.join("CACHEDIR.TAG").exists());
    let built = directories.last().map(|directory| directory.join(built));
    let places: Vec<_> = built.into_iter().chain([firn.with_file_name("firn-init")]).collect();
    if let Some(found) = places.iter().find(|place| place.exists()) {
        return Ok(found.clone());
    }
    let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    bail!("there is no firn-init at {}; {}", places.join(" or "), how_to_build(machine))
}

/// The next step without a firn-init.
fn how_to_build(machine: &str) -> String {
    format!(
        "build it with cargo build --release --bin firn-init --no-default-features --target {machine}-unknown-linux-musl, or \
         name another one with --firn-init"
    )
}

/// Reads a firn-init for machines of `system` (`x86_64-linux`).
///
/// # Errors
///
/// A missing file, a file that is no program, a program for another machine, or one that is linked dynamically.
pub fn firn_init(path: &Path, system: &str) -> Result<Vec<u8>> {
    let program = file::read(path).with_context(|| {
        let machine = system.split_once('-').map_or("x86_64", |(machine, _)| machine);
        format!("reading firn-init at {}; {}", path.display(), how_to_build(machine))
    })?;
    let advice = "build it for musl, or with -C target-feature=+crt-static like the .cargo/config.toml of firn";
    check(&program, system, advice).with_context(|| format!("{} cannot be PID 1", path.display()))?;
    Ok(program)
}

/// Reads a busybox for machines of `system`.
///
/// # Errors
///
/// Those of [`firn_init`].
pub fn rescue_shell(path: &Path, system: &str) -> Result<Vec<u8>> {
    let advice = "give a static busybox: pkgsStatic.busybox of nixpkgs, or Debian's busybox-static";
    let program = file::read(path).with_context(|| format!("reading the rescue shell {}; {advice}", path.display()))?;
    check(&program, system, advice).with_context(|| format!("{} cannot be the rescue shell", path.display()))?;
    Ok(program)
}

fn check(program: &[u8], system: &str, advice: &str) -> Result<()> {
    let elf =
        ElfFile64::<Endianness>::parse(program).with_context(|| format!("it is not a 64-bit ELF program; {advice}"))?;
    let wanted = match system.split_once('-').map(|(machine, _)| machine) {
        Some("x86_64") => Architecture::X86_64,
        Some("aarch64") => Architecture::Aarch64,
        _ => elf.architecture(),
    };
    ensure!(
        elf.architecture() == wanted,
        "it is built for {:?}, and the system is {system}; build it for that target",
        elf.architecture()
    );
    let endian = elf.endian();
    let dynamic = elf.elf_program_headers().iter().any(|header| header.p_type(endian) == elf::PT_INTERP);
    ensure!(!dynamic, "it is linked dynamically, and the ramdisk has no loader; {advice}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn firn_init_lies_beside_firn_or_in_the_target_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let file = |name: &str| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), "").unwrap();
        };
        let find = |firn: &str| find_firn_init(&path(firn), "x86_64").map_err(|error| error.to_string());
        let musl = "target/x86_64-unknown-linux-musl/release/firn-init";
        let glibc = "target/x86_64-unknown-linux-gnu/release/firn";
        for marked in ["target", "target/x86_64-unknown-linux-gnu", "target/x86_64-unknown-linux-musl"] {
            file(&format!("{marked}/CACHEDIR.TAG"));
        }

        let error = find("bin/firn").unwrap_err();
        let command = "cargo build --release --bin firn-init --no-default-features --target x86_64-unknown-linux-musl";
        assert!(
            error.starts_with(&format!("there is no firn-init at {}; ", path("bin/firn-init").display())),
            "{error}"
        );
        let error = find(glibc).unwrap_err();
        for expected in
            [path(musl).to_str().unwrap(), path(glibc).with_file_name("firn-init").to_str().unwrap(), command]
        {
            assert!(error.contains(expected), "no {expected} in {error}");
        }

        file(musl);
        for firn in [glibc, "target/release/firn", "target/x86_64-unknown-linux-gnu/debug/firn"] {
            assert_eq!(find(firn), Ok(path(musl)), "{firn}");
        }
        // Only a directory that cargo made is searched.
        file("usr/x86_64-unknown-linux-musl/release/firn-init");
        find("usr/bin/firn").unwrap_err();
        let beside = "target/x86_64-unknown-linux-gnu/release/firn-init";
        for (firn, expected) in [("usr/bin/firn", "usr/bin/firn-init"), (glibc, musl)] {
            file(&format!("{firn}-init"));
            assert_eq!(find(firn), Ok(path(expected)), "{firn}");
        }
        fs::remove_file(path(musl)).unwrap();
        assert_eq!(find(glibc), Ok(path(beside)));
    }

    #[test]
    fn programs_that_cannot_be_pid_1() {
        let this_test = fs::read("/proc/self/exe").unwrap(); // static, by .cargo/config.toml
        let dynamic = fs::read("/bin/sh").unwrap();
        let host = format!("{}-linux", std::env::consts::ARCH);
        let other = if host == "x86_64-linux" { "aarch64-linux" } else { "x86_64-linux" };
        check(&this_test, &host, "").unwrap();
        for (program, system, expected) in [
            (&dynamic, host.as_str(), "linked dynamically"),
            (&this_test, other, "build it for that target"),
            (&b"#!/bin/sh\n".to_vec(), &host, "not a 64-bit ELF"),
        ] {
            let error = format!("{:#}", check(program, system, "").unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
