//! The builder's command line: parse, call, print an error once. A file for each subcommand.

mod build;

use clap::{Parser, Subcommand};
use firn::image::interrupt;
use std::process::ExitCode;

/// Packs NixOS systems that run from memory, with a stage 1 that boots them.
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
}

fn main() -> ExitCode {
    let Command::Build(build) = Cli::parse().command;
    if let Err(error) = interrupt::listen() {
        eprintln!("firn: what is interrupted will leave temporary files: {error}");
    }
    match build.run() {
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
