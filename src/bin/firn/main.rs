//! The builder's command line: parse, call, print an error once. A file for each subcommand.

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
mod words;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Packs NixOS systems that run from memory, with a stage 1 that boots them; and looks into what was packed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make all that a machine needs to boot a system: initrd, bzImage, netboot.ipxe; and nix-store.squashfs, manifest.json
    Build(build::Build),
    /// Make the store image alone
    Image(image::Image),
    /// Make the ramdisk alone, for a store image that was made before
    Ramdisk(ramdisk::Ramdisk),
    /// Make a directory that machines with iPXE boot from: netboot.ipxe and all that it fetches
    Ipxe(ipxe::Ipxe),
    /// Make a directory that a running Linux boots a system from by kexec: bzImage, initrd.gz, kexec-boot
    Kexec(kexec::Kexec),
    /// Make a tarball of the same
    Tarball(tarball::Tarball),
    /// Make one program for UEFI of the kernel, the ramdisk and the command line
    Uki(uki::Uki),
    /// Say what a build, a ramdisk, a store image or a kernel is, and what is in it
    Inspect(inspect::Inspect),
    /// List the files of a ramdisk, of all of its segments
    Ls(ls::Ls),
    /// Print a file of a ramdisk
    Cat(cat::Cat),
    /// Unpack a ramdisk into a directory
    Unpack(unpack::Unpack),
    /// Compare two builds, ramdisks or store images: store paths, kernel, modules, command line
    Diff(diff::Diff),
    /// Compare every file of a build with its manifest, and the store image with the ramdisk's plan
    Verify(verify::Verify),
    /// Boot a build under QEMU, with this terminal as its console
    Boot(boot::Boot),
    /// Print the completions of a shell for firn
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
            eprintln!("firn: {error:#}");
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
