//! The builder's command line: parse, call, print an error once.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use firn::image::progress::Progress;
use firn::image::{self, Compression, Options};
use std::path::PathBuf;
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
    /// Make all that a machine needs to boot a system: initrd, bzImage, netboot.ipxe, manifest.json
    Build(Build),
}

#[derive(Args)]
struct Build {
    /// The system: a NixOS toplevel in the Nix store, or a link to one such as ./result
    toplevel: PathBuf,

    /// Directory for what is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// How mksquashfs compresses the store: the compressor and its options, or "none"
    #[arg(long, value_name = "WORDS", default_value = "zstd -Xcompression-level 19")]
    compression: Compression,

    /// Size of the blocks that the store is compressed in, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    block_size: u32,

    /// The firn-init to pack; without this the one that lies beside this program
    #[arg(long, value_name = "FILE")]
    firn_init: Option<PathBuf>,

    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

fn main() -> ExitCode {
    let Command::Build(build) = Cli::parse().command;
    match build.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Build {
    fn run(self) -> Result<()> {
        let progress = if self.quiet { Progress::Quiet } else { Progress::for_stderr() };
        let options = Options {
            toplevel: self.toplevel,
            out: self.out,
            firn_init: self.firn_init.map_or_else(beside_this_program, Ok)?,
            compression: self.compression,
            block_size: self.block_size,
        };
        let manifest = image::build(&options, progress)?;
        if !self.quiet {
            println!("{} in {}", manifest.label, options.out.display());
            for file in &manifest.files {
                println!("{:>12} bytes  {}", file.bytes, file.name);
            }
        }
        Ok(())
    }
}

fn beside_this_program() -> Result<PathBuf> {
    let program =
        std::env::current_exe().context("looking for firn-init beside this program; name it with --firn-init")?;
    Ok(program.with_file_name("firn-init"))
}
