//! Programs for the ramdisk, checked: a PID 1 that needs a loader which is not there is a kernel panic without a reason.

use anyhow::{Context, Result, ensure};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Architecture, Endianness, Object, elf};
use std::fs;
use std::path::Path;

/// Reads a firn-init for machines of `system` (`x86_64-linux`).
///
/// # Errors
///
/// No such file, no program, one for another machine, or one that is linked dynamically.
pub fn firn_init(path: &Path, system: &str) -> Result<Vec<u8>> {
    let program = fs::read(path).with_context(|| {
        format!(
            "reading firn-init at {}; build it with cargo build --release --no-default-features --bin firn-init, and \
             name it with --firn-init if it does not lie beside firn",
            path.display()
        )
    })?;
    let advice = "build it with -C target-feature=+crt-static, as the .cargo/config.toml of firn does";
    check(&program, system, advice).with_context(|| format!("{} cannot be PID 1", path.display()))?;
    Ok(program)
}

/// Reads a busybox, likewise.
///
/// # Errors
///
/// As above.
pub fn rescue_shell(path: &Path, system: &str) -> Result<Vec<u8>> {
    let program = fs::read(path).with_context(|| format!("reading the rescue shell {}", path.display()))?;
    let advice = "give a static busybox: pkgsStatic.busybox of nixpkgs, or Debian's busybox-static";
    check(&program, system, advice).with_context(|| format!("{} cannot be the rescue shell", path.display()))?;
    Ok(program)
}

fn check(program: &[u8], system: &str, advice: &str) -> Result<()> {
    let elf = ElfFile64::<Endianness>::parse(program).context("it is no 64-bit ELF program")?;
    let wanted = match system.split_once('-').map(|(machine, _)| machine) {
        Some("x86_64") => Architecture::X86_64,
        Some("aarch64") => Architecture::Aarch64,
        _ => elf.architecture(),
    };
    ensure!(
        elf.architecture() == wanted,
        "it is built for {:?} and the system is {system}; build it for that target",
        elf.architecture()
    );
    let endian = elf.endian();
    let dynamic = elf.elf_program_headers().iter().any(|header| header.p_type(endian) == elf::PT_INTERP);
    ensure!(!dynamic, "it is linked dynamically and the ramdisk has no loader; {advice}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_pid_1() {
        let this_test = fs::read("/proc/self/exe").unwrap(); // static, by .cargo/config.toml
        let dynamic = fs::read("/bin/sh").unwrap();
        let host = format!("{}-linux", std::env::consts::ARCH);
        let other = if host == "x86_64-linux" { "aarch64-linux" } else { "x86_64-linux" };
        check(&this_test, &host, "").unwrap();
        for (program, system, expected) in [
            (&dynamic, host.as_str(), "linked dynamically"),
            (&this_test, other, "build it for that target"),
            (&b"#!/bin/sh\n".to_vec(), &host, "no 64-bit ELF"),
        ] {
            let error = format!("{:#}", check(program, system, "").unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
