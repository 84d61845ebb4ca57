//! Incomplete systems, each with one missing or wrong file: one store image contains all of them, and `init=` selects one.

use super::LINUX_6_1;
use super::failures::fails;
use super::fixture::{Build, boot, pack, run};
use qemu::Machine;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The file `init` of a system.
enum Init {
    /// The probe, which is a static program.
    Probe,
    /// A file with these contents and this mode.
    File(&'static str, u32),
    /// A symlink.
    Link(&'static str),
}

/// The name and the contents of a file.
type File = (&'static str, &'static str);

/// The systems: name, init and other files.
const SYSTEMS: [(&str, Init, &[File]); 9] = [
    ("alone", Init::Probe, &[]),
    ("bare", Init::Probe, &[VERSION, ("boot.json", r#"{"org.nixos.nixos-init.v1": {"etc_confext": {}}}"#)]),
    ("dangling", Init::Link("/nix/store/no-such-system/init"), &[VERSION]),
    ("no-extension", Init::Probe, &[VERSION, ("boot.json", "{}")]),
    ("no-format", Init::File("neither a script nor a program\n", 0o755), &[]),
    ("no-interpreter", Init::File("#!/no/such/interpreter -e\n", 0o755), &[VERSION]),
    ("no-program", Init::File("#!/bin/sh\n", 0o644), &[VERSION]),
    ("overlay", Init::Probe, &[VERSION, ("boot.json", OVERLAY), ("prepare-root", "")]),
    ("wrong-extension", Init::Probe, &[VERSION, ("boot.json", r#"{"org.nixos.nixos-init.v1": {"firmware": 1}}"#)]),
];

const VERSION: File = ("nixos-version", "1");

/// The image of /etc is an existing file, but no erofs. The ramdisk for this kernel has no module for erofs.
const OVERLAY: &str = r#"{"org.nixos.nixos-init.v1":
    {"etc_metadata_image": "/nix/store/nix-path-registration", "etc_basedir": "/nix/store"}}"#;

/// The image with all of the systems, packed as the image of a system that cannot start.
fn image() -> &'static Build {
    static IMAGE: OnceLock<Build> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let demo = Path::new(&LINUX_6_1.build().manifest.toplevel);
        let system = directory.path().join("odd");
        for (name, init, files) in &SYSTEMS {
            make(&system.join(name), init, files);
        }
        make(&system.join("broken-activation"), &Init::Probe, &[VERSION]);
        fs::copy(env!("CARGO_BIN_EXE_firn-probe"), system.join("broken-activation/prepare-root")).unwrap();
        make(&system, &Init::File("#!/no/such/interpreter\n", 0o755), &[VERSION]);
        for name in ["kernel-params", "system"] {
            fs::copy(demo.join(name), system.join(name)).unwrap();
        }
        for name in ["kernel", "kernel-modules"] {
            symlink(demo.join(name), system.join(name)).unwrap();
        }
        let toplevel = run(Command::new("nix-store").arg("--add").arg(&system)).unwrap();
        pack(toplevel.trim(), Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-odd"), &[]).unwrap()
    })
}

fn make(system: &Path, init: &Init, files: &[File]) {
    fs::create_dir_all(system).unwrap();
    let path = system.join("init");
    match init {
        Init::Probe => drop(fs::copy(env!("CARGO_BIN_EXE_firn-probe"), &path).unwrap()),
        Init::Link(target) => symlink(target, &path).unwrap(),
        Init::File(contents, mode) => {
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
        }
    }
    for (name, contents) in files {
        fs::write(system.join(name), contents).unwrap();
    }
}

/// A machine that starts one of the systems.
fn machine(system: &str, words: &str) -> Machine {
    let mut machine = Machine::of_build(&image().directory).unwrap();
    machine.append(&format!("init={}/{system}/init {words}", image().manifest.toplevel));
    machine
}

#[test]
fn an_init_of_no_system_is_executed_as_it_is() {
    let report = boot(&machine("alone", "probe=facts")).unwrap();
    let init = format!("{}/alone/init", image().manifest.toplevel);
    assert_eq!((report.pid1.exe.as_str(), report.pid1.argv.as_slice()), (init.as_str(), [init.clone()].as_slice()));
    assert_eq!(report.pid1.environ, [""; 0]);
    assert_eq!(report.boot["hand_over"], "none");
    // The profile is the default system's.
    assert_eq!(report.paths["/nix/var/nix/profiles/system"].as_ref(), Some(&image().manifest.toplevel));
    assert_eq!(report.paths["/run/booted-system"], None);
}

#[test]
fn a_system_without_nix_starts_and_says_so() {
    let report = boot(&machine("bare", "probe=facts")).unwrap();
    assert_eq!(report.boot["hand_over"], "nixos-init");
    assert_eq!(report.paths["/run/booted-system"], Some(format!("{}/bare", image().manifest.toplevel)));
    let warnings: Vec<_> =
        report.boot["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let [unknown, register] = warnings.as_slice() else { panic!("{warnings:#?}") };
    assert!(
        unknown.ends_with("bare/boot.json has settings that this firn does not know and ignores: etc_confext"),
        "{unknown}"
    );
    assert!(register.starts_with("The store is not registered, so Nix does not know its paths"), "{register}");
    assert!(
        register.contains("running ") && register.contains("bare/sw/bin/nix-store; if the file exists"),
        "{register}"
    );

    let words = ["in the step  registration", "firn.register=required", "bare/sw/bin/nix-store", "No such file"];
    fails(&machine("bare", "firn.register=required"), &words);
}

#[test]
fn a_dangling_init() {
    let there = format!("the store image contains init={}", image().manifest.init);
    fails(&machine("dangling", ""), &["in the step  system", "looking for the init", &there, "No such file"]);
}

#[test]
fn an_init_that_cannot_be_executed() {
    fails(&machine("no-program", ""), &["in the step  system", "it is not executable (mode 444)"]);
    let script = "its interpreter is /no/such/interpreter; pack the whole closure of the system";
    fails(&machine("no-interpreter", ""), &["in the step  system", script, "No such file"]);
    // Only the kernel finds this fault, after the initramfs is deleted; the reason is still shown.
    fails(&machine("no-format", ""), &["in the step  hand-over", "no-format/init; the file exists, so its loader"]);
}

#[test]
fn an_etc_that_the_kernel_cannot_have() {
    let words = ["in the step  etc", "mounting the overlay for /etc", "no file system erofs"];
    fails(&machine("overlay", ""), &words);
}

#[test]
fn an_extension_that_is_missing_or_wrong() {
    fails(
        &machine("no-extension", ""),
        &["in the step  system", "no extension org.nixos.nixos-init.v1 in its boot.json"],
    );
    fails(
        &machine("wrong-extension", ""),
        &["in the step  system", "wrong-extension/boot.json", "firmware is not a string"],
    );
}

#[test]
fn a_step_that_others_do_without_is_left_out() {
    let mut machine = machine("bare", "firn.register=required firn.on_failure=menu probe=facts");
    machine.when("in the step  registration", "");
    machine.when("s  go on without this step", "s");
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["hand_over"], "nixos-init");
    let warnings = report.boot["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|text| text.as_str().unwrap().starts_with("registration: ")), "{warnings:#?}");
}

#[test]
fn a_system_without_activation_starts_only_if_somebody_types_that() {
    let mut machine = machine("broken-activation", "firn.on_failure=menu boot.trace");
    machine.when("in the step  activation", "");
    // The second one with a mistake that is taken back.
    for typed in ["no\n", "without activax\x7ftion\n"] {
        machine.when("s  start the system without its activation", "s");
        machine.when("Type \"without activation\" and press Enter: ", typed);
    }
    let outcome = machine.run().unwrap();
    // The probe is its init, too, and ends here.
    let words = ["activation: skipped", "Executing ", "there is no probe= on the kernel", "Attempted to kill init"];
    super::failures::shows(&outcome, &words);
    assert_eq!(outcome.console.matches("the boot failed.").count(), 1);
}

#[test]
fn a_prepare_root_that_fails() {
    let words = [
        "in the step  activation",
        "broken-activation/prepare-root failed (exit status: 1); its last output: firn-probe: there is no probe= on the kernel",
    ];
    fails(&machine("broken-activation", "firn.register=none"), &words);
}
