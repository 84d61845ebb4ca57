//! The command line of the builder: parses it, calls a subcommand, prints an error once. Each subcommand has a file.

mod arguments;
mod boot;
mod build;
mod cat;
mod completions;
mod diff;
mod image;
mod inspect;
mod ipxe;
mod kexec;
mod ls;
mod man;
mod ramdisk;
mod report;
mod tarball;
mod text;
mod uki;
mod unpack;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Build and inspect network-bootable NixOS images
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a directory that boots a system from memory: initrd, bzImage, netboot.ipxe, nix-store.squashfs, manifest.json
    Build(build::Build),
    /// Make only the store image
    Image(image::Image),
    /// Make only the ramdisk, for a store image made by firn image
    Ramdisk(ramdisk::Ramdisk),
    /// Make a directory for iPXE from a build: netboot.ipxe and the files that it fetches
    Ipxe(ipxe::Ipxe),
    /// Make a directory for kexec from a build: bzImage, initrd.gz and kexec-boot, a script that boots them from a running Linux
    Kexec(kexec::Kexec),
    /// Pack the directory for kexec (bzImage, initrd.gz, kexec-boot) into one .tar.zst
    Tarball(tarball::Tarball),
    /// Make a unified kernel image (UKI) from a build: one program for UEFI with kernel, ramdisk and command line
    Uki(uki::Uki),
    /// Summarise a build, a ramdisk, a store image, a kernel or a unified kernel image (UKI)
    Inspect(inspect::Inspect),
    /// List the files of a ramdisk or of the ramdisk in a UKI
    Ls(ls::Ls),
    /// Print a file of a ramdisk or of the ramdisk in a UKI
    Cat(cat::Cat),
    /// Unpack a ramdisk or the ramdisk in a UKI into a directory
    Unpack(unpack::Unpack),
    /// Compare two builds, ramdisks, UKIs or store images: store paths, kernel, modules, command line
    Diff(diff::Diff),
    /// Compare the files of a build with its manifest, and the store image with the plan in the ramdisk
    Verify(verify::Verify),
    /// Boot a build under QEMU, with this terminal as its console
    Boot(boot::Boot),
    /// Print completions of firn for a shell
    Completions(completions::Completions),
    /// Write the man pages of firn into a directory
    Man(man::Man),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Build(build) => build.run(),
        Command::Image(image) => image.run(),
        Command::Ramdisk(ramdisk) => ramdisk.run(),
        Command::Ipxe(ipxe) => ipxe.run(),
        Command::Kexec(kexec) => kexec.run(),
        Command::Tarball(tarball) => tarball.run(),
        Command::Uki(uki) => uki.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Ls(ls) => ls.run(),
        Command::Cat(cat) => cat.run(),
        Command::Unpack(unpack) => unpack.run(),
        Command::Diff(diff) => diff.run(),
        Command::Verify(verify) => verify.run(),
        Command::Boot(boot) => boot.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            text::complain(&format!("{error:#}{}", text::next_step(&error)));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
