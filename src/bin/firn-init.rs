//! Process 1 of the initramfs: the whole boot is [`firn::boot::run`]. Run as a normal program, it only answers two options.

use anyhow::{Context, Result};
use firn::boot;
use firn::contract::plan::{self, Plan};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        return answer();
    }
    std::panic::set_hook(Box::new(|panic| {
        // After this hook returns, process 1 ends and the kernel panics. So it never returns.
        boot::rescue::menu::fail_for_ever(
            &anyhow::anyhow!("{panic}").context("unknown: this is a bug in firn-init; report it with this screen"),
        );
    }));
    keep_a_slot_of_each_size();
    boot::run()
}

/// Answers the options of a normal program. Changes nothing.
fn answer() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--version"] => println!("firn-init {} (plans of format {})", env!("CARGO_PKG_VERSION"), plan::VERSION),
        ["--check-plan", file] => match check_plan(file) {
            Ok(plan) => println!("{file} is for the kernel {} and starts {}", plan.kernel_release, plan.init),
            Err(error) => {
                eprintln!("firn-init: {error:#}");
                return ExitCode::FAILURE;
            }
        },
        _ => {
            eprintln!(
                "firn-init {}: stage 1 of a NixOS system that runs from memory. It is the init of a ramdisk made by `firn \
                 build` and boots the system as process 1. Run as a normal program, it only answers: firn-init --version, \
                 firn-init --check-plan FILE",
                env!("CARGO_PKG_VERSION")
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn check_plan(file: &str) -> Result<Plan> {
    std::fs::read_to_string(file)
        .map_err(anyhow::Error::new)
        .and_then(|json| Plan::from_json(&json))
        .with_context(|| format!("reading {file}"))
}

/// Keeps one allocation of each small size for ever. musl gives the pages of a size back to the kernel whenever the last slot of that
/// size is freed, and takes new ones with the next allocation: two system calls and page faults for a line of the log.
fn keep_a_slot_of_each_size() {
    for power in 4..13 {
        for quarters in 4..8 {
            std::mem::forget(std::hint::black_box(Vec::<u8>::with_capacity((1 << power) * quarters / 4)));
        }
    }
}
