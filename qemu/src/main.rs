//! Boots builds of firn, for people and scripts.

mod bench;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use qemu::steps::{self, Steps};
use qemu::{Exit, Kvm, Machine};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Boot builds of firn under QEMU
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot a build and show its console until the machine switches itself off
    Boot(Boot),
    /// Boot a build, verify the store inside the machine, and fail if it is damaged; the system needs firn-probe
    Verify(Build),
    /// Print the instructions of each step of stage 1; the system needs firn-probe
    Count(Build),
    /// Boot systems of the bench in counted machines and print the cost of each part of the boot
    Bench(Bench),
    /// Find the smallest memory with which systems of the bench boot
    Memory(Variants),
}

#[derive(Args)]
struct Bench {
    #[command(flatten)]
    variants: Variants,

    /// Memory of the machines, MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,

    /// File that keeps the figures; the tables show what changed since the last run
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
}

#[derive(Args)]
struct Variants {
    /// Directories with bzImage, initrd and manifest.json; each is compared with the last one before it whose name begins with floor
    #[arg(required = true, value_name = "DIR")]
    variants: Vec<PathBuf>,

    /// Also write the tables to files whose names begin with this
    #[arg(long, value_name = "PREFIX")]
    tables: Option<String>,
}

#[derive(Args)]
struct Build {
    /// Directory made by firn build
    directory: PathBuf,

    /// Memory of the machine, MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    memory: u32,

    /// Kernel parameters to add after those of the build
    #[arg(long, value_name = "PARAMS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    append: String,
}

#[derive(Args)]
struct Boot {
    #[command(flatten)]
    build: Build,

    /// Use this terminal as the console of the machine
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
            "the system verified nothing: its firn-probe does not know probe=verify; build the system again"
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
        // For comparison: without the prebuilt database.
        let loaded = self.steps("firn.register=load")?.cost("registration");
        println!("{steps}{}", steps::line(loaded, "registration with firn.register=load"));
        Ok(())
    }

    fn steps(&self, parameters: &str) -> Result<Steps> {
        let mut machine = Machine { counted: true, ..self.machine()? };
        // quiet: the kernel waits for each byte that it prints on the serial port, and this time is no cost of stage 1.
        machine.append(&format!("probe=facts quiet {parameters}"));
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
            "the machine still ran after {} s and was switched off; read the end of the console above, or give more time with \
             --time-limit",
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
        "the machine still ran after {} s and was switched off; the console ends with:\n{}",
        machine.time_limit.as_secs(),
        outcome.last_words()
    );
    ensure!(
        !outcome.report.is_empty(),
        "the system wrote no report: is firn-probe in it (initrd-tests/system/build --probe)? The console ends with:\n{}",
        outcome.last_words()
    );
    serde_json::from_slice(&outcome.report).context("reading the system's report")
}

/// The fields of the report of firn-probe (`initrd-tests/src/lib.rs`) that are read here.
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
