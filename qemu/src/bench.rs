//! The bench: boots of directories that hold `bzImage`, `initrd` and a `manifest.json` with a command line, and their figures.

use anyhow::{Context, Result, ensure};
use qemu::marks::Boot;
use qemu::{Exit, Machine};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// How many machines run at once.
const AT_ONCE: usize = 2;

/// The step of the search for the smallest memory, MiB.
const STEP: u32 = 4;

/// Something to boot: its name is the last part of the path.
pub type Variant = PathBuf;

/// Boots each variant in a counted machine and prints tables; the first one is what the others are compared with. The file keeps
/// the figures for the next time, and what they were the last time is in the tables.
pub fn boots(variants: &[Variant], memory: u32, file: Option<&Path>) -> Result<()> {
    let booted = all(variants, |variant| {
        let mut machine = Machine { counted: true, memory_mib: memory, ..machine(variant)? };
        // What the kernel prints on the serial port, it waits for.
        machine.append("quiet");
        boot(&machine)
    })?;
    let before: BTreeMap<String, Boot> = file
        .and_then(|file| fs::read(file).ok())
        .map_or_else(|| Ok(BTreeMap::new()), |json| serde_json::from_slice(&json))
        .context("reading the figures of the last time")?;
    print_tables(&booted, &before);
    if let Some(file) = file {
        let figures: BTreeMap<_, _> = before.into_iter().chain(booted).collect();
        fs::write(file, serde_json::to_vec_pretty(&figures)?).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Prints the smallest memory with which each variant boots to a registered system and starts it.
pub fn memory(variants: &[Variant]) -> Result<()> {
    let found = all(variants, |variant| {
        let initrd = u32::try_from(fs::metadata(variant.join("initrd"))?.len() >> 20)?;
        // Never with less than the ramdisk, nor with more than twice that and all that anybody here takes besides.
        let (mut fails, mut boots) = (initrd / STEP * STEP, (2 * initrd + 512) / STEP * STEP);
        while boots - fails > STEP {
            let memory_mib = u32::midpoint(fails, boots) / STEP * STEP;
            let machine = Machine { memory_mib, time_limit: Duration::from_mins(4), ..machine(variant)? };
            match boot(&machine) {
                Ok(_) => boots = memory_mib,
                Err(_) => fails = memory_mib,
            }
        }
        Ok((initrd, boots))
    })?;
    println!("\n| variant | initrd, MiB | smallest memory, MiB |\n| --- | --- | --- |");
    for (name, (initrd, memory)) in found {
        println!("| {name} | {initrd} | {memory} |");
    }
    Ok(())
}

fn machine(variant: &Path) -> Result<Machine> {
    Ok(Machine { time_limit: Duration::from_mins(10), ..Machine::of_build(variant)? })
}

fn boot(machine: &Machine) -> Result<Boot> {
    let outcome = machine.run()?;
    Boot::from_report(&String::from_utf8_lossy(&outcome.report))
        .and_then(|boot| {
            ensure!(outcome.exit == Exit::Ended, "it did not switch itself off");
            Ok(boot)
        })
        .with_context(|| format!("its last words:\n{}", outcome.last_words()))
}

/// Does the same with each variant, a few at once; the results with their names, in order.
fn all<T: Send>(variants: &[Variant], run: impl Fn(&Path) -> Result<T> + Sync) -> Result<Vec<(String, T)>> {
    let next = Mutex::new(variants.iter().enumerate());
    let done = Mutex::new(Vec::new());
    let work = || {
        while let Some((index, variant)) = { next.lock().expect("no panic").next() } {
            let name = variant.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let result = run(variant).with_context(|| format!("variant {name}"));
            done.lock().expect("no panic").push((index, name, result));
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let mut done = done.into_inner().expect("no panic");
    done.sort_by_key(|(index, ..)| *index);
    done.into_iter().map(|(_, name, result)| Ok((name, result?))).collect()
}

/// Prints the figures as tables of Markdown.
fn print_tables(booted: &[(String, Boot)], before: &BTreeMap<String, Boot>) {
    println!("\nGi (10^9 instructions)\n");
    println!(
        "| variant | kernel to init | stage 1 | of the first one's | exec to stage 2 | registration | all of that | start |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    // What a stage 1 has read of the image, the exec finds in memory: the second ratio is the fairer one.
    let both = |boot: &Boot| boot.stage_1 + boot.exec;
    let first = booted.first().map_or((1, 1), |(_, boot)| (boot.stage_1.max(1), both(boot).max(1)));
    for (name, boot) in booted {
        let figure = |of: fn(&Boot) -> u64| gi(of(boot), before.get(name).map(of));
        println!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
            figure(|boot| boot.kernel),
            figure(|boot| boot.stage_1),
            ratio(boot.stage_1, first.0),
            figure(|boot| boot.exec),
            ratio(both(boot), first.1),
            figure(|boot| boot.registration),
            figure(Boot::registered),
            figure(|boot| boot.start),
        );
    }
    for (name, boot) in booted.iter().filter(|(_, boot)| !boot.steps.is_empty()) {
        println!("\n| {name}: step | Gi |\n| --- | --- |");
        for (step, cost) in &boot.steps {
            let was = before.get(name).and_then(|boot| boot.steps.iter().find(|(name, _)| name == step));
            println!("| {step} | {} |", gi(*cost, was.map(|(_, cost)| *cost)));
        }
    }
    let names = ["MemTotal", "MemAvailable", "Cached", "Shmem", "Slab"];
    println!(
        "\nMiB at the first line of stage 2\n\n| variant | {} |\n| --- {}|",
        names.join(" | "),
        "| --- ".repeat(names.len())
    );
    for (name, boot) in booted {
        let mib =
            |name| boot.memory.get(name).map_or("?".into(), |kb| format!("{}.{}", kb / 1024, kb % 1024 * 10 / 1024));
        println!("| {name} | {} |", names.map(mib).join(" | "));
    }
}

/// Microseconds of the counted clock, and how they differ from what they were if that is worth a word.
fn gi(cost: u64, was: Option<u64>) -> String {
    let digits = |cost: u64| format!("{}.{:04}", cost / 1_000_000, cost % 1_000_000 / 100);
    match was {
        Some(was) if was.abs_diff(cost) >= 200.max(was / 50) => {
            format!("{} ({}{})", digits(cost), if cost < was { '-' } else { '+' }, digits(was.abs_diff(cost)))
        }
        _ => digits(cost),
    }
}

fn ratio(cost: u64, of: u64) -> String {
    let hundredths = cost * 100 / of;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_how_it_moved() {
        assert_eq!(gi(1_234_567, None), "1.2345");
        assert_eq!(gi(1_234_567, Some(1_234_000)), "1.2345");
        assert_eq!(gi(50_000, Some(60_000)), "0.0500 (-0.0100)");
        assert_eq!(gi(60_000, Some(50_000)), "0.0600 (+0.0100)");
        assert_eq!(ratio(50_000, 33_000), "1.51");
    }
}
