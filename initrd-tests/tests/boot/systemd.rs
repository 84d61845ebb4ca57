//! Systems whose init is systemd: `prepare-root` or stage 1 itself activates them before it starts. Each test makes many claims about
//! one boot, because a boot with systemd is slow.

use super::fixture::{Fixture, boot};
use super::{assert_succeeded, command};
use initrd_tests::Report;
use qemu::Machine;
use std::path::Path;

pub static PREPARE_ROOT_6_1: Fixture = Fixture::of_kind("prepare-root", "6.1", "activation,register,systemd");
pub static PREPARE_ROOT_6_12: Fixture = Fixture::of_kind("prepare-root", "6.12", "activation,register,systemd");
pub static NIXOS_INIT: Fixture = Fixture::of_kind("nixos-init", "6.12", "activation,register,systemd");

mod a_system_with_prepare_root {
    use super::{PREPARE_ROOT_6_1, PREPARE_ROOT_6_12, has_been_activated};

    #[test]
    fn on_6_1() {
        has_been_activated(&PREPARE_ROOT_6_1);
    }

    #[test]
    fn on_6_12() {
        has_been_activated(&PREPARE_ROOT_6_12);
    }
}

fn has_been_activated(fixture: &Fixture) {
    let (report, toplevel) = (fixture.report(), &fixture.build().manifest.toplevel);
    systemd_runs(fixture, report);
    registration_changes_nothing(report);
    assert_eq!(report.boot["hand_over"], "prepare-root");
    // The output of the script.
    let said = report
        .dmesg
        .iter()
        .position(|line| line.text.ends_with(&format!("prepare-root: stage 2: Activating {toplevel}")));
    // Bash has the script as descriptor 255, and the directory that it reads as 3.
    let inherited = "Returning, with the environment IN_NIXOS_SYSTEMD_STAGE1=true and the open files 0 1 2 255 3";
    assert!(report.dmesg.iter().any(|line| line.text.ends_with(inherited)), "{:#?}", report.dmesg);
    let done = report.dmesg.iter().position(|line| line.text.contains("activation: done in"));
    assert!(said.is_some() && said < done, "{:#?}", report.dmesg);
    assert_eq!(mounts(report, "/nix/store"), ["rw,relatime", "ro,nosuid,nodev,relatime"]);
    assert_eq!(mounts(report, "/etc"), [""; 0]);
}

#[test]
fn a_system_for_nixos_init() {
    let report = NIXOS_INIT.report();
    systemd_runs(&NIXOS_INIT, report);
    registration_changes_nothing(report);
    activated_by_stage_1(report);
    let (metadata, contents) = etc_parts();
    let etc = report.mounts.iter().find(|mount| mount.target == "/etc").unwrap();
    assert_eq!((etc.kind.as_str(), etc.options.as_str()), ("overlay", "rw,nosuid,nodev,relatime"));
    let layers = format!("lowerdir=/run/nixos-etc-metadata::{contents},upperdir=/.rw-etc/upper,workdir=/.rw-etc/work");
    assert_eq!(etc.super_options, format!("rw,{layers},redirect_dir=on,uuid=on,metacopy=on"));
    assert_eq!(report.loop_files["loop1"], metadata);
    assert_eq!(command(report, &["touch", "/etc/new"]).status, Some(0));
    assert_eq!(report.paths["/etc/NIXOS"].as_deref(), Some("/etc/NIXOS"));
}

#[test]
fn b_11_a_kernel_that_keeps_mounted_devices_from_writers() {
    // As every boot of a kernel without BLK_DEV_WRITE_MOUNTED. Stage 1 mounts two loop devices, the second one on /etc.
    let mut machine = Machine::of_build(&NIXOS_INIT.build().directory).unwrap();
    let toplevel = format!("{}/probe", NIXOS_INIT.build().manifest.toplevel);
    machine.append(&format!("init={toplevel}/init bdev_allow_write_mounted=0 probe=facts"));
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    assert_eq!(report.loop_files.len(), 2, "{:#?}", report.loop_files);
}

#[test]
fn an_etc_that_cannot_be_written_to() {
    let mut machine = Machine::of_build(&NIXOS_INIT.build().directory).unwrap();
    let toplevel = format!("{}/probe", NIXOS_INIT.build().manifest.toplevel);
    machine.append(&format!("init={toplevel}/init firn.etc=immutable firn.register=none probe=activation"));
    let report = boot(&machine).unwrap();
    activated_by_stage_1(&report);
    let (_, contents) = etc_parts();
    let etc = report.mounts.iter().find(|mount| mount.target == "/etc").unwrap();
    assert_eq!((etc.kind.as_str(), etc.options.as_str()), ("overlay", "ro,nosuid,nodev,relatime"));
    assert_eq!(
        etc.super_options,
        format!("ro,lowerdir=/run/nixos-etc-metadata::{contents},redirect_dir=on,metacopy=on")
    );
    let touch = command(&report, &["touch", "/etc/new"]);
    assert!(touch.stderr.contains("Read-only file system"), "{touch:#?}");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    assert!(report.dmesg.iter().any(|line| line.text.ends_with("Not making /etc/NIXOS: /etc is read-only")));
}

#[test]
fn b_11_a_clock_that_begins_with_1970() {
    let fixture = &PREPARE_ROOT_6_12;
    let mut machine = Machine::of_build(&fixture.build().directory).unwrap();
    machine.arguments = ["-rtc", "base=1970-01-01"].map(Into::into).into();
    machine.append("firn.register=load probe=systemd,register");
    let report = boot(&machine).unwrap();
    let logged = |text: &str| report.dmesg.iter().any(|line| line.text.contains(text));
    assert!(logged("setting system clock to 1970-01-01T00:00:") && logged("advancing clock"), "{:#?}", report.dmesg);
    // systemd's own clock jumps, and the times of stage 1 stay right.
    systemd_runs(fixture, &report);
    registration_changes_nothing(&report);
}

/// Process 1 is the system's own systemd, started as a systemd in an initramfs would start it, and it reports no failure.
fn systemd_runs(fixture: &Fixture, report: &Report) {
    let manifest = &fixture.build().manifest;
    assert_eq!(report.pid1.exe, manifest.init);
    let [name, switched, system, state] = report.pid1.argv.as_slice() else { panic!("{:?}", report.pid1.argv) };
    assert_eq!([name.as_str(), switched, system], [&manifest.init, "--switched-root", "--system"]);
    assert!(state.starts_with("--deserialize="), "{state}");
    assert_eq!(report.pid1.environ, [""; 0]);
    assert!(!report.pid1.files.values().any(|file| file.contains("systemd-state")), "{:#?}", report.pid1);
    for path in ["/run/booted-system", "/run/current-system", "/nix/var/nix/profiles/system"] {
        assert_eq!(report.paths[path].as_ref(), Some(&manifest.toplevel), "{path}");
    }
    assert_eq!(report.boot["warnings"], serde_json::json!([]));

    let running = command(report, &["systemctl", "is-system-running", "--wait"]);
    let failed = command(report, &["systemctl", "--failed", "--plain", "--no-legend"]);
    assert_eq!(running.stdout, "running\n", "{failed:#?}");
    // The times are those that stage 1 measured.
    let analyze = command(report, &["systemd-analyze", "time"]);
    let seconds = |part: &str| {
        let time = analyze.stdout.split(&format!(" ({part})")).next().unwrap().rsplit(' ').next().unwrap();
        let (number, unit) = time.strip_suffix("ms").map_or((time.trim_end_matches('s'), 1.0), |time| (time, 1000.0));
        number.parse::<f64>().unwrap_or_else(|_| panic!("no {part} in {analyze:#?}")) / unit
    };
    let steps = report.boot["steps"].as_array().unwrap();
    let (began, ended) =
        (steps[0]["start"].as_f64().unwrap() / 1e6, steps.last().unwrap()["end"].as_f64().unwrap() / 1e6);
    assert!((seconds("kernel") - began).abs() < 0.002, "{began}: {analyze:#?}");
    // systemd reads the clock only after its loader has run, which needs a long time on a busy host.
    assert!((0.0..30.0).contains(&(seconds("initrd") - (ended - began))), "{began} to {ended}: {analyze:#?}");
}

/// The parts of the bootspec for nixos-init that stage 1 does instead.
fn activated_by_stage_1(report: &Report) {
    assert_eq!(report.boot["hand_over"], "nixos-init");
    let spec = bootspec();
    let text = |key: &str| spec[key].as_str().unwrap();
    let links = command(report, &["readlink", "/bin/sh", "/usr/bin/env"]);
    assert_eq!(links.stdout, format!("{}\n{}\n", text("sh_binary"), text("env_binary")));
    let told = command(report, &["cat", "/proc/sys/kernel/modprobe", "/sys/module/firmware_class/parameters/path"]);
    assert_eq!(told.stdout, format!("{}\n{}\n", text("modprobe_binary"), text("firmware")));
    let modes = command(report, &["stat", "--format", "%a %u:%g %n", "/nix/store", "/etc/group", "/etc/shadow"]);
    assert_eq!(modes.stdout, "1775 0:30000 /nix/store\n644 0:0 /etc/group\n600 0:0 /etc/shadow\n");
    assert_eq!(mounts(report, "/nix/store"), ["rw,relatime", "ro,nosuid,nodev,relatime"]);
    assert_eq!(mounts(report, "/run/nixos-etc-metadata"), ["ro,nosuid,nodev,relatime"]);
    // The first is a file with its contents in the other layer, the second a link.
    let contents = command(report, &["cat", "/etc/group", "/etc/os-release"]);
    assert!(contents.stdout.starts_with("root:x:0:\nNAME="), "{contents:#?}");
}

/// The steps of NixOS' own register-nix-paths, after stage 1 has done the same, change nothing.
pub fn registration_changes_nothing(report: &Report) {
    let database = ["/nix/var/nix/db", "/nix/var/nix/db/db.sqlite", "/nix/var/nix/db/schema"];
    let modes = command(report, &[&["stat", "--format", "%a %u:%g %n"], database.as_slice()].concat());
    let expected = ["755", "644", "644"].iter().zip(database).map(|(mode, path)| format!("{mode} 0:0 {path}\n"));
    assert_eq!(modes.stdout, expected.collect::<String>());
    assert_eq!(command(report, &["cat", "/nix/var/nix/db/schema"]).stdout, "10");
    for argv in [
        &["sh", "-c", "nix-store --load-db < /nix/store/nix-path-registration"][..],
        &["touch", "/etc/NIXOS"],
        &["nix-env", "--profile", "/nix/var/nix/profiles/system", "--set", "/run/current-system"],
    ] {
        let step = command(report, argv);
        assert_succeeded(step);
        assert_eq!((step.stdout.as_str(), step.stderr.as_str()), ("", ""));
    }
    let profiles = command(report, &["ls", "/nix/var/nix/profiles"]);
    assert_eq!(profiles.stdout, "per-user\nsystem\nsystem-1-link\n");
    let dumps: Vec<_> = report.commands.iter().filter(|command| command.argv == ["nix-store", "--dump-db"]).collect();
    let [before, after] = dumps.as_slice() else { panic!("{} dumps", dumps.len()) };
    assert!(before.stdout.contains("-nixos-system-firn-demo-"), "{before:#?}");
    assert_eq!(before.stdout, after.stdout);
}

/// The options of each mount on `target`, the first one first.
fn mounts<'a>(report: &'a Report, target: &str) -> Vec<&'a str> {
    let mounts = report.mounts.iter().filter(|mount| mount.target == target);
    mounts.map(|mount| mount.options.as_str()).collect()
}

/// The extension for nixos-init in the fixture's bootspec.
fn bootspec() -> serde_json::Value {
    let path = Path::new(&NIXOS_INIT.build().manifest.toplevel).join("boot.json");
    let mut document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    document["org.nixos.nixos-init.v1"].take()
}

/// The two store paths of its `/etc`.
fn etc_parts() -> (String, String) {
    let spec = bootspec();
    let path = |key: &str| spec[key].as_str().unwrap().to_owned();
    (path("etc_metadata_image"), path("etc_basedir"))
}
