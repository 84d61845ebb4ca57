//! Runs in a booted system after the system's stage 2 has activated it, and reports the state of the system to the tests.
//!
//! The kernel parameter `probe=GROUP[,GROUP…]` names the [`GROUPS`] of commands that also run. With `probe=silent` the probe does
//! nothing. The report (`initrd_tests::Report`) goes to the second serial port.

use anyhow::{Context, Result, bail};
use initrd_tests::{Command, LogLine, Process, Report, proc};
use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

/// The serial port for the report.
const PORT: &str = "/dev/ttyS1";

/// The directory with the system's programs.
const SOFTWARE: &str = "/run/current-system/sw/bin";

/// A file for `nix-store --add`.
const NEW_FILE: &str = "/tmp/firn-probe-new";

/// Commands by group. The tests judge their output and their exit status.
const GROUPS: &[(&str, &[&[&str]])] = &[
    ("facts", &[]),
    // The size of a directory depends on the file system of its upper layer.
    (
        "etc",
        &[
            &["find", "/etc", "-type", "d", "-printf", "%P d %m %U:%G\n", "-o", "-printf", "%P %y %m %U:%G %s %l\n"],
            &["sh", "-c", "cd /etc && find . -type f -exec grep -H '' {} +"],
        ],
    ),
    ("hostid", &[&["hostid"]]),
    (
        "files",
        &[
            &["stat", "--format", "%a %u:%g %n", "/etc", "/etc/ssh", "/etc/ssh/key", "/etc/secret"],
            &["cat", "/etc/ssh/key", "/etc/secret"],
        ],
    ),
    // Deletes whatever Nix does not need, and registers the store again.
    (
        "collect",
        &[
            &["nix-collect-garbage", "-d"],
            &["sh", "-c", "ls -d /nix/store/*-*"],
            // In a store that is registered, Nix deletes the registration: it is no store path.
            &[
                "sh",
                "-c",
                "test ! -e /nix/store/nix-path-registration || nix-store --load-db < /nix/store/nix-path-registration",
            ],
            &["nix-store", "--verify", "--check-contents"],
            &["nix-store", "--add", NEW_FILE],
        ],
    ),
    // Fills the root and the writable layer of the store: with a large file each, with small files, with empty files in addition.
    (
        "fill",
        &[
            &["sh", "-c", "for at in / /nix/.rw-store/store; do dd if=/dev/zero of=$at/full bs=1M; done 2>&1"],
            &["sh", "-c", "rm /full /nix/.rw-store/store/full; mkdir /small /nix/.rw-store/store/small"],
            &["sh", "-c", "for at in / /nix/.rw-store/store; do seq 999999 | split -l 1 -a 5 - $at/small/; done 2>&1"],
            &[
                "sh",
                "-c",
                "for at in / /nix/.rw-store/store; do cd $at/small; seq 50000 | xargs touch 2>&1 | tail -n 1; done",
            ],
            &["free", "--kibi"],
        ],
    ),
    // A script that a test adds as a file of the host.
    ("host", &[&["sh", "/firn-test"]]),
    ("modules", &[&["cat", "/sys/module/loop/parameters/max_loop"], &["ls", "/sys/module", "/dev", "/sys/class/net"]]),
    // poweroff here does not sync.
    ("persistence", &[&["sh", "-c", "echo $(nix-store --add /tmp/firn-probe-new) >> /boots; cat /boots"], &["sync"]]),
    ("sync", &[&["sync"]]),
    (
        "activation",
        &[
            &["readlink", "/bin/sh", "/usr/bin/env"],
            &["cat", "/proc/sys/kernel/modprobe", "/sys/module/firmware_class/parameters/path"],
            &["stat", "--format", "%a %u:%g %n", "/nix/store", "/etc/group", "/etc/shadow"],
            &["cat", "/etc/group", "/etc/os-release"],
            &["touch", "/etc/new"],
        ],
    ),
    (
        "carried",
        &[
            &[
                "stat",
                "--format",
                "%a %n",
                "/etc/firn-test",
                "/etc/firn-test/key",
                "/root/.ssh",
                "/root/.ssh/authorized_keys",
            ],
            &["cat", "/etc/firn-test/key", "/root/.ssh/authorized_keys"],
        ],
    ),
    // The commands of register-nix-paths, a unit of NixOS' netboot media, and the state before and after them.
    (
        "register",
        &[
            &[
                "stat",
                "--format",
                "%a %u:%g %n",
                "/nix/var/nix/db",
                "/nix/var/nix/db/db.sqlite",
                "/nix/var/nix/db/schema",
            ],
            &["cat", "/nix/var/nix/db/schema"],
            &["nix-store", "--dump-db"],
            &["sh", "-c", "nix-store --load-db < /nix/store/nix-path-registration"],
            &["touch", "/etc/NIXOS"],
            &["nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", "/run/current-system"],
            &["ls", "/nix/var/nix/profiles"],
            &["nix-store", "--dump-db"],
        ],
    ),
    (
        "systemd",
        &[
            &["systemctl", "is-system-running", "--wait"],
            &["systemctl", "--failed", "--plain", "--no-legend"],
            &["systemd-analyze", "time"],
        ],
    ),
    // Only the next system writes a report: this waits until systemd has started it.
    (
        "kexec",
        &[&[
            "sh",
            "-c",
            "PATH=/kexec/bin:$PATH sh /kexec/kexec-boot panic=-1 probe=facts 'way=k e # x\\ec' && sleep infinity",
        ]],
    ),
    // As nixos-anywhere does it: the end runs in the background.
    ("kexec-run", &[&["sh", "-c", "PATH=/kexec/bin:$PATH sh /kexec/run --kexec-extra-flags '' && sleep infinity"]]),
    (
        "kexec-refused",
        &[
            &["dd", "if=/dev/zero", "of=/full", "bs=1M", "count=200"],
            &["sh", "-c", "PATH=/kexec/bin:$PATH sh /kexec/kexec-boot panic=-1 probe=facts"],
            // As under Secure Boot, but only now: Secure Boot would refuse the demo's modules, which have no signatures.
            &[
                "sh",
                "-ec",
                "rm /full
                 mount -t securityfs securityfs /sys/kernel/security
                 echo integrity > /sys/kernel/security/lockdown",
            ],
            &["sh", "-c", "PATH=/kexec/bin:$PATH sh /kexec/kexec-boot --force panic=-1 probe=facts"],
        ],
    ),
    // What is there of the credentials, what systemd says of them, and what a unit gets.
    (
        "credentials",
        &[
            &[
                "sh",
                "-c",
                "cd /run; stat --format '%a %n' credentials credentials/@* credentials/@*/* systemd/tpm2* systemd/stub/*; \
                 touch credentials/@encrypted/new",
            ],
            &["systemd-creds", "--system", "list", "--no-legend", "--no-pager"],
            &["sh", "-c", "systemctl start firn-credentials; cat /run/firn-credentials"],
        ],
    ),
    // The mounts as systemd sees them. Then the probe's end has systemd stop everything, and the console shows it.
    (
        "stop",
        &[
            &["systemctl", "show", "--property", "Conflicts,Where", "*.mount"],
            &[
                "sh",
                "-ec",
                "cd /run/systemd/system; mkdir -p firn-probe.service.d
                 printf '[Unit]\\nSuccessAction=poweroff\\n' > firn-probe.service.d/clean.conf
                 systemctl daemon-reload; systemctl status --no-pager systemd-remount-fs",
            ],
        ],
    ),
    ("userns", &[&["unshare", "--user", "true"]]),
    ("verify", &[&["nix-store", "--verify", "--check-contents"]]),
    (
        "nix",
        &[
            &["nix-store", "--verify", "--check-contents"],
            &["nix-store", "--query", "--requisites", "/run/current-system"],
            &["nix-store", "--add", NEW_FILE],
            &["touch", "/nix/store/firn-probe-direct"],
            &["nix-store", "--gc", "--print-roots"],
            &["nix-collect-garbage"],
            // Another path than above, so that the tests can tell the two commands apart.
            &["nix-store", "--query", "--requisites", "/nix/var/nix/profiles/system"],
            &["nix-store", "--verify"],
        ],
    ),
];

/// Paths whose targets are in the report.
const PATHS: [&str; 5] = [
    "/etc/NIXOS",
    "/nix/var/nix/db/db.sqlite",
    "/nix/var/nix/profiles/system",
    "/run/booted-system",
    "/run/current-system",
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn-probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let cmdline = read("/proc/cmdline")?.trim().to_owned();
    let Some(commands) = commands(&cmdline)? else { return Ok(()) };
    // The kernel keeps memory counters for each CPU and adds them up from time to time. Reading this file adds them up now.
    read("/proc/sys/vm/stat_refresh")?;
    fs::create_dir_all("/tmp").context("making /tmp")?;
    fs::write(NEW_FILE, "firn-probe\n").with_context(|| format!("writing {NEW_FILE}"))?;
    let report = Report {
        // before the commands, which make files and run programs
        pid1: process("/proc/1")?,
        mounts: proc::mounts(&read("/proc/1/mountinfo")?)?,
        cmdline,
        kernel_release: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        log_limit: read("/proc/sys/kernel/printk_devkmsg")?.trim().to_owned(),
        meminfo: proc::meminfo(&read("/proc/meminfo")?),
        loop_files: loop_files()?,
        paths: PATHS.iter().map(|path| ((*path).to_owned(), resolve(path))).collect(),
        boot: serde_json::from_str(&read("/run/firn/boot.json")?).context("reading /run/firn/boot.json")?,
        dmesg: dmesg()?,
        commands: commands.into_iter().map(execute).collect(),
    };
    send(&serde_json::to_vec(&report)?).with_context(|| format!("writing the report to {PORT}"))
}

/// The commands that this kernel command line selects; `None` with `probe=silent`.
fn commands(cmdline: &str) -> Result<Option<Vec<&'static [&'static str]>>> {
    let words = cmdline.split_whitespace().filter_map(|word| word.strip_prefix("probe=")).next_back();
    let mut commands = Vec::new();
    for word in words.context("there is no probe= on the kernel command line")?.split(',') {
        if word == "silent" {
            return Ok(None);
        }
        match GROUPS.iter().find(|(name, _)| *name == word) {
            Some((_, group)) => commands.extend_from_slice(group),
            None => bail!("probe={word}: there is no group of commands with this name"),
        }
    }
    Ok(Some(commands))
}

fn execute(argv: &[&str]) -> Command {
    let mut command = std::process::Command::new(argv[0]);
    // The environment of a login, without the variables that stage 2 set for itself.
    command.args(&argv[1..]).env_clear().env("HOME", "/root").env("PATH", SOFTWARE);
    let (status, stdout, stderr) = match command.output() {
        Ok(output) => (output.status.code(), output.stdout, output.stderr),
        Err(error) => (None, Vec::new(), error.to_string().into()),
    };
    Command {
        argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
        status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

fn process(directory: &str) -> Result<Process> {
    let status = read(&format!("{directory}/status"))?;
    let bytes = |name| fs::read(format!("{directory}/{name}")).with_context(|| format!("reading {directory}/{name}"));
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(format!("{directory}/fd"))? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()).context("a descriptor without a number")?;
        files.insert(number.parse()?, read_link(&path)?);
    }
    Ok(Process {
        exe: read_link(Path::new(&format!("{directory}/exe")))?,
        argv: proc::strings(&bytes("cmdline")?),
        environ: proc::strings(&bytes("environ")?),
        signals_ignored: proc::signals(&status, "SigIgn")?,
        signals_blocked: proc::signals(&status, "SigBlk")?,
        files,
    })
}

/// The loop devices with a file.
fn loop_files() -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir("/sys/block").context("reading /sys/block")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match fs::read_to_string(path.join("loop/backing_file")) {
            Ok(file) => drop(files.insert(name, file.trim_end().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading the file of {name}")),
        }
    }
    Ok(files)
}

/// The whole kernel log. Each read gives one record.
fn dmesg() -> Result<Vec<LogLine>> {
    let mut kmsg =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open("/dev/kmsg")?;
    let mut lines = Vec::new();
    let mut record = [0; 8192];
    loop {
        match kmsg.read(&mut record) {
            Ok(length) => lines.push(proc::log_line(&String::from_utf8_lossy(&record[..length]))?),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(lines),
            // A newer record has overwritten this one; the next read continues after the gap.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error).context("reading /dev/kmsg"),
        }
    }
}

fn send(report: &[u8]) -> Result<()> {
    let mut port =
        File::options().read(true).write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed()).open(PORT)?;
    let mut settings = tcgetattr(&port)?;
    // A terminal writes each newline as two bytes.
    settings.make_raw();
    tcsetattr(&port, OptionalActions::Now, &settings)?;
    port.write_all(report)?;
    // The machine is switched off when this program ends.
    Ok(tcdrain(&port)?)
}

fn resolve(path: &str) -> Option<String> {
    fs::canonicalize(path).ok().map(|path| path.to_string_lossy().into_owned())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

fn read_link(path: &Path) -> Result<String> {
    let target = fs::read_link(path).with_context(|| format!("reading the link {}", path.display()))?;
    Ok(target.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_groups() {
        let all = |cmdline| commands(cmdline).unwrap().map(|commands| commands.concat());
        assert_eq!(all("quiet probe=facts"), Some(vec![]));
        assert_eq!(all("probe=facts probe=facts,userns init=/x"), Some(vec!["unshare", "--user", "true"]));
        assert_eq!(all("probe=userns,silent"), None);
        assert!(commands("quiet").is_err());
        assert!(commands("probe=").is_err());
        assert!(commands("probe=no-such").unwrap_err().to_string().contains("no-such"));
    }
}
