//! Boots what `firn build` made, for people and scripts.

mod bench;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use qemu::steps::{self, Steps};
use qemu::{Exit, Kvm, Machine};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Boots what `firn build` made in a QEMU machine.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot, with the console on standard output, until the machine switches itself off
    Boot(Boot),
    /// Boot as well, have the system verify its store, and fail if that does; the system must have firn-probe in it
    Verify(Build),
    /// Print how many instructions each step of stage 1 takes; the system must have firn-probe in it
    Count(Build),
    /// Boot systems of the bench in counted machines and print what each part of the boot costs
    Bench(Bench),
    /// Search the smallest memory with which systems of the bench boot
    Memory(Variants),
}

#[derive(Args)]
struct Bench {
    #[command(flatten)]
    variants: Variants,

    /// Size of the machines' memory, MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,

    /// Keeps the figures, and says what changed since the last time
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
}

#[derive(Args)]
struct Variants {
    /// Directories with bzImage, initrd and manifest.json; others are compared with the last floor before them
    #[arg(required = true, value_name = "DIR")]
    variants: Vec<PathBuf>,

    /// Write the tables to files, too, whose names begin with this
    #[arg(long, value_name = "PREFIX")]
    tables: Option<String>,
}

#[derive(Args)]
struct Build {
    /// Directory that `firn build` made
    directory: PathBuf,

    /// Size of the machine's memory, MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    memory: u32,

    /// More words for the kernel command line
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    append: String,
}

#[derive(Args)]
struct Boot {
    #[command(flatten)]
    build: Build,

    /// Make this terminal the machine's console
    #[arg(long, conflicts_with = "time_limit")]
    interactive: bool,

    /// Switch the machine off after this time, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    time_limit: u64,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Boot(boot) => boot.run(),
        Command::Verify(build) => build.verify(),
        Command::Count(build) => build.count(),
        Command::Bench(Bench { variants, memory, figures }) => {
            bench::boots(&variants.variants, memory, figures.as_deref(), variants.tables.as_deref())
        }
        Command::Memory(variants) => bench::memory(&variants.variants, variants.tables.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("qemu: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Build {
    fn machine(&self) -> Result<Machine> {
        let mut machine = Machine { memory_mib: self.memory, ..Machine::of_build(&self.directory)? };
        machine.append(&self.append);
        Ok(machine)
    }

    fn verify(&self) -> Result<()> {
        let mut machine = Machine { show: true, ..self.machine()? };
        machine.append("probe=verify");
        let commands = report(&machine)?.commands;
        ensure!(
            !commands.is_empty(),
            "the system verified nothing: its firn-probe knows no probe=verify; build it again"
        );
        for command in commands {
            let line = command.argv.join(" ");
            println!("{line}\n{}{}", command.stdout, command.stderr.trim_end());
            ensure!(command.status == Some(0), "{line} failed in the machine");
            println!("{line}: ok");
        }
        Ok(())
    }

    fn count(&self) -> Result<()> {
        let steps = self.steps("")?;
        // What the prebuilt database saves.
        let loaded = self.steps("firn.register=load")?.cost("registration");
        println!("{steps}{}", steps::line(loaded, "registration with firn.register=load"));
        Ok(())
    }

    fn steps(&self, words: &str) -> Result<Steps> {
        let mut machine = Machine { counted: true, ..self.machine()? };
        // quiet: what the kernel prints on the serial port, it waits for, and that is no cost of stage 1.
        machine.append(&format!("probe=facts quiet {words}"));
        let log = report(&machine)?.dmesg;
        Steps::from_log(log.iter().map(|line| (line.microseconds, line.text.as_str())))
    }
}

impl Boot {
    fn run(&self) -> Result<()> {
        let machine = Machine { time_limit: Duration::from_secs(self.time_limit), show: true, ..self.build.machine()? };
        if self.interactive {
            let kvm = Kvm::tested(&machine.kernel)?;
            qemu::command::print(&machine.command(true, kvm == Kvm::On));
            // Ctrl-C goes to the guest.
            return machine.interact(kvm, &|| Ok(()));
        }
        let outcome = machine.run()?;
        ensure!(
            outcome.exit == Exit::Ended,
            "the machine still ran after {} s and was switched off; see what its console said last, or give it more time \
             with --time-limit",
            self.time_limit
        );
        ensure!(!outcome.console.contains("Kernel panic"), "the kernel panicked; the console above says why");
        Ok(())
    }
}

/// Boots a machine whose command line asks for a report.
fn report(machine: &Machine) -> Result<Report> {
    let outcome = machine.run()?;
    ensure!(
        outcome.exit == Exit::Ended,
        "the machine still ran after {} s and was switched off; its last words:\n{}",
        machine.time_limit.as_secs(),
        outcome.last_words()
    );
    ensure!(
        !outcome.report.is_empty(),
        "the system wrote no report: is firn-probe in it (initrd-tests/system/build --probe)? Its last words:\n{}",
        outcome.last_words()
    );
    serde_json::from_slice(&outcome.report).context("reading the system's report")
}

/// What is read here of the report that firn-probe writes (`initrd-tests/src/lib.rs`).
#[derive(Deserialize)]
struct Report {
    dmesg: Vec<Line>,
    commands: Vec<Ran>,
}

#[derive(Deserialize)]
struct Ran {
    argv: Vec<String>,
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

#[derive(Deserialize)]
struct Line {
    microseconds: u64,
    text: String,
}
