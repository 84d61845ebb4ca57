//! The bench: boots directories with `bzImage`, `initrd` and a `manifest.json` with a command line, and prints their figures.

use anyhow::{Context, Error, Result, ensure};
use qemu::marks::Boot;
use qemu::{Exit, Machine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// The number of machines that run at the same time.
const AT_ONCE: usize = 2;

/// The step of the search for the smallest memory, MiB.
const STEP: u32 = 4;

/// A cheaper step is not in the tables, microseconds of the counted clock.
const NEXT_TO_NOTHING: u64 = 300;

/// A directory to boot; the last part of its path is its name.
pub type Variant = PathBuf;

/// Boots each variant in a counted machine and prints tables. A variant is compared with the last one before it whose name begins
/// with `floor`. `file` keeps the figures; the tables show changes since its last version. With `tables` the tables are also written
/// to files, without these changes: `TABLES-boots.md`, `TABLES-steps.md`, `TABLES-memory.md`.
///
/// # Errors
///
/// Variants that do not boot, after the tables of the others are printed.
pub fn boots(variants: &[Variant], memory: u32, file: Option<&Path>, tables: Option<&str>) -> Result<()> {
    let (booted, failed) = all(variants, |variant| {
        let mut machine = Machine { counted: true, memory_mib: memory, ..machine(variant)? };
        // The kernel waits for each byte that it prints on the serial port.
        machine.append("quiet");
        let initrd = fs::metadata(variant.join("initrd"))?.len();
        Ok(Figures { initrd, boot: boot(&machine)? })
    });
    let before: BTreeMap<String, Figures> = file
        .and_then(|file| fs::read(file).ok())
        .map_or_else(|| Ok(BTreeMap::new()), |json| serde_json::from_slice(&json))
        .context("reading the figures of the last run")?;
    let now = [("boots", boots_table as Table), ("steps", steps_table), ("memory", memory_table)];
    for (name, table) in now {
        println!("\n{}", table(&booted, &before));
        if let Some(tables) = tables {
            fs::write(format!("{tables}-{name}.md"), table(&booted, &BTreeMap::new()))?;
        }
    }
    if let Some(file) = file {
        let figures: BTreeMap<_, _> = before.into_iter().chain(booted).collect();
        fs::write(file, serde_json::to_vec_pretty(&figures)?).with_context(|| file.display().to_string())?;
    }
    report(&failed)
}

/// Prints the smallest memory with which each variant boots to a registered system and starts it. With `tables` the table is also
/// written to the file `TABLES-smallest.md`.
///
/// # Errors
///
/// Variants that do not boot, after the table of the others is printed.
pub fn memory(variants: &[Variant], tables: Option<&str>) -> Result<()> {
    let (found, failed) = all(variants, |variant| {
        let initrd = u32::try_from(fs::metadata(variant.join("initrd"))?.len() >> 20)?;
        // At least the ramdisk, and at most twice the ramdisk plus what any variant here needs for itself.
        let (mut fails, mut boots) = (initrd / STEP * STEP, (2 * initrd + 512) / STEP * STEP);
        while boots - fails > STEP {
            let memory_mib = u32::midpoint(fails, boots) / STEP * STEP;
            let machine = Machine { memory_mib, time_limit: Duration::from_mins(3), ..machine(variant)? };
            match boot(&machine) {
                Ok(_) => boots = memory_mib,
                Err(_) => fails = memory_mib,
            }
        }
        Ok((initrd, boots))
    });
    let mut table = String::from("| variant | initrd, MiB | smallest memory, MiB |\n| --- | --- | --- |\n");
    for (name, (initrd, memory)) in found {
        writeln!(table, "| {name} | {initrd} | {memory} |")?;
    }
    println!("\n{table}");
    if let Some(tables) = tables {
        fs::write(format!("{tables}-smallest.md"), table)?;
    }
    report(&failed)
}

fn machine(variant: &Path) -> Result<Machine> {
    Ok(Machine { time_limit: Duration::from_mins(10), ..Machine::of_build(variant)? })
}

fn boot(machine: &Machine) -> Result<Boot> {
    let outcome = machine.run()?;
    Boot::from_report(&String::from_utf8_lossy(&outcome.report))
        .and_then(|boot| {
            ensure!(outcome.exit == Exit::Ended, "the machine did not switch itself off");
            Ok(boot)
        })
        .with_context(|| format!("the console ends with:\n{}", outcome.last_words()))
}

/// The names and results of the variants that succeeded, and the errors of the others, each in order.
type Done<T> = (Vec<(String, T)>, Vec<Error>);

/// Runs a function on each variant, a few at the same time.
fn all<T: Send>(variants: &[Variant], run: impl Fn(&Path) -> Result<T> + Sync) -> Done<T> {
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
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for (_, name, result) in done {
        match result {
            Ok(value) => found.push((name, value)),
            Err(error) => failed.push(error),
        }
    }
    (found, failed)
}

fn report(failed: &[Error]) -> Result<()> {
    let said: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), "{}", said.join("\n\n"));
    Ok(())
}

/// The figures of a variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Figures {
    /// Size of the ramdisk, bytes.
    initrd: u64,
    boot: Boot,
}

/// Makes a Markdown table of the variants that booted, given their figures and those of the last run.
type Table = fn(&[(String, Figures)], &BTreeMap<String, Figures>) -> String;

/// Gi (10^9 instructions) of each part of the boots.
fn boots_table(booted: &[(String, Figures)], before: &BTreeMap<String, Figures>) -> String {
    let mut table = String::from(
        "| variant | initrd, bytes | kernel to init | stage 1 | of the floor's | **to the exec** | exec to stage 2 | registration | **to a registered \
         system** | start |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut floor = None;
    for (name, Figures { initrd, boot }) in booted {
        if name.starts_with("floor") {
            floor = Some(boot.stage_1.max(1));
        }
        let figure = |of: fn(&Boot) -> u64| gi(of(boot), before.get(name).map(|figures| of(&figures.boot)));
        let columns = [
            name.clone(),
            initrd.to_string(),
            figure(|boot| boot.kernel),
            figure(|boot| boot.stage_1),
            floor.map_or_else(String::new, |floor| ratio(boot.stage_1, floor)),
            format!("**{}**", figure(|boot| boot.kernel + boot.stage_1)),
            figure(|boot| boot.exec),
            figure(|boot| boot.registration),
            format!("**{}**", figure(Boot::registered)),
            figure(|boot| boot.start),
        ];
        table += &row(columns);
    }
    table
}

/// Gi of each step of stage 1, of the variants that log their steps. Steps that are cheap in every variant are left out.
fn steps_table(booted: &[(String, Figures)], before: &BTreeMap<String, Figures>) -> String {
    let telling: Vec<_> = booted.iter().filter(|(_, figures)| !figures.boot.steps.is_empty()).collect();
    let mut names: Vec<&str> = Vec::new();
    // Later variants have more steps and give the order.
    for (_, figures) in telling.iter().rev() {
        names.extend(
            figures
                .boot
                .steps
                .iter()
                .map(|(step, _)| step.as_str())
                .filter(|step| !names.contains(step))
                .collect::<Vec<_>>(),
        );
    }
    let mut table = row(["step"].into_iter().chain(telling.iter().map(|(name, _)| name.as_str())));
    table += &row(std::iter::repeat_n("---", telling.len() + 1));
    for step in names {
        let of = |boot: &Boot| boot.steps.iter().find(|(name, _)| name == step).map(|(_, cost)| *cost);
        if telling.iter().all(|(_, figures)| of(&figures.boot).is_none_or(|cost| cost < NEXT_TO_NOTHING)) {
            continue;
        }
        let figures = telling.iter().map(|(name, figures)| {
            let was = before.get(name).and_then(|figures| of(&figures.boot));
            of(&figures.boot).map_or(String::new(), |cost| gi(cost, was))
        });
        table += &row([step.to_owned()].into_iter().chain(figures));
    }
    table
}

/// MiB at the first line of stage 2.
fn memory_table(booted: &[(String, Figures)], _before: &BTreeMap<String, Figures>) -> String {
    let names = ["MemTotal", "MemAvailable", "Cached", "Shmem", "Slab"];
    let mut table = row(["variant"].into_iter().chain(names));
    table += &row(["---"; 6]);
    for (name, Figures { boot, .. }) in booted {
        let mib =
            |name| boot.memory.get(name).map_or("?".into(), |kb| format!("{}.{}", kb / 1024, kb % 1024 * 10 / 1024));
        table += &row([name.clone()].into_iter().chain(names.map(mib)));
    }
    table
}

/// A line of a table.
fn row<T: AsRef<str>>(columns: impl IntoIterator<Item = T>) -> String {
    let columns: Vec<_> = columns.into_iter().map(|column| format!("| {} ", column.as_ref())).collect();
    columns.concat() + "|\n"
}

/// Microseconds of the counted clock as Gi, with the change since the last run if it is 2 % or more.
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
    fn a_figure_shows_its_change() {
        assert_eq!(gi(1_234_567, None), "1.2345");
        assert_eq!(gi(1_234_567, Some(1_234_000)), "1.2345");
        assert_eq!(gi(50_000, Some(60_000)), "0.0500 (-0.0100)");
        assert_eq!(gi(60_000, Some(50_000)), "0.0600 (+0.0100)");
        assert_eq!(ratio(50_000, 33_000), "1.51");
    }
}
