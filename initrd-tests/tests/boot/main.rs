//! The state of a system after firn has booted it: each test is one claim about it.
//!
//! A system is booted once for all of its claims, in this process: use `cargo test`, and not a runner that starts a process for each
//! test. The tests of a claim are next to each other in the alphabet, so that two threads start two machines.

mod by_hand;
mod command_lines;
mod consoles;
mod credentials;
mod database;
mod disks;
mod dying;
mod etc;
mod failures;
mod file_systems;
mod files;
mod fixture;
mod foreign;
mod formats;
mod large;
mod libc;
mod living;
mod members;
mod memory;
mod modules;
mod netboot;
mod odd;
mod own_files;
mod persistence;
mod processors;
mod ramdisks;
mod rescue;
mod retained;
mod stop;
mod systemd;
mod ways;
mod words;

use firn::contract::place;
use fixture::{Fixture, boot, sorted_lines};
use initrd_tests::{Command, Mount, Report};
use qemu::Machine;
use std::fs;
use std::time::Duration;

static LINUX_6_1: Fixture = Fixture::new("6.1");
static LINUX_6_12: Fixture = Fixture::new("6.12");
static LINUX_7: Fixture = Fixture::new("7");

/// Makes tests from claims, which are functions with the same names; and a list of them.
macro_rules! on_every_kernel {
    ($($claim:ident)*) => {
    const CLAIMS: &[fn(&Fixture)] = &[$($claim),*];

    $(
        mod $claim {
            #[test]
            fn on_6_1() {
                super::$claim(&super::LINUX_6_1);
            }

            #[test]
            fn on_6_12() {
                super::$claim(&super::LINUX_6_12);
            }

            #[test]
            fn on_7() {
                super::$claim(&super::LINUX_7);
            }
        }
    )*};
}

on_every_kernel! {
    a_8_the_limits_are_less_than_the_memory_that_is_left
    garbage_collection_leaves_the_system_whole
    init_has_an_empty_environment
    init_has_its_signals_and_files_to_itself
    process_1_is_the_systems_init
    stage_1_says_what_the_boot_was_like
    the_closure_is_the_builders
    the_contents_of_the_store_are_what_is_registered
    the_initramfs_is_gone_and_its_memory_back
    the_kernel_is_the_systems
    the_limit_on_log_lines_is_the_kernels_again
    the_mounts_are_exactly_these
    the_root_is_tagged_as_nixos
    the_store_refuses_direct_writes
    the_store_takes_a_new_path
    the_system_profile_is_the_system
    user_namespaces_can_be_made
}

/// The command of the probe with these arguments.
fn command<'a>(report: &'a Report, argv: &[&str]) -> &'a Command {
    report.commands.iter().find(|command| command.argv == argv).unwrap_or_else(|| panic!("{argv:?} was not run"))
}

fn assert_succeeded(command: &Command) {
    assert_eq!(command.status, Some(0), "{command:#?}");
}

fn process_1_is_the_systems_init(fixture: &Fixture) {
    let (init, pid1) = (&fixture.build().manifest.init, &fixture.report().pid1);
    // The init is a script: the kernel puts the interpreter before the path of the script. The init has no arguments.
    let script = fs::read_to_string(init).unwrap();
    let interpreter = script.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap();
    assert_eq!(pid1.argv, [interpreter, init]);
    assert_eq!(pid1.exe, interpreter);
}

fn init_has_an_empty_environment(fixture: &Fixture) {
    assert_eq!(fixture.report().pid1.environ, [""; 0]);
}

fn init_has_its_signals_and_files_to_itself(fixture: &Fixture) {
    const SIGQUIT: u64 = 1 << 2;
    const SIGCHLD: u64 = 1 << 16;
    let pid1 = &fixture.report().pid1;
    // Bash itself ignores SIGQUIT, and blocks SIGCHLD while it waits. An ignored SIGPIPE would also be ignored in every service of
    // the system.
    assert_eq!(pid1.signals_ignored & !SIGQUIT, 0, "{pid1:#?}");
    assert_eq!(pid1.signals_blocked & !SIGCHLD, 0, "{pid1:#?}");
    for (number, file) in &pid1.files {
        let expected = match number {
            0..=2 => "/dev/console",
            // bash keeps its script here
            255 => &fixture.build().manifest.init,
            _ => panic!("descriptor {number} was left open: {file}"),
        };
        assert_eq!(file, expected, "descriptor {number}");
    }
}

fn the_mounts_are_exactly_these(fixture: &Fixture) {
    let report = fixture.report();
    let overlay = "lowerdir=/nix/.ro-store,upperdir=/nix/.rw-store/store,workdir=/nix/.rw-store/work";
    // Since 6.6 the kernel also prints defaults.
    let metacopy = if fixture.kernel == "6.1" { "metacopy=on" } else { "redirect_dir=on,uuid=on,metacopy=on" };
    let overlay = format!("{overlay},{metacopy}");
    let expected = [
        "tmpfs tmpfs / rw,relatime rw,mode=755,inode64",
        "devtmpfs devtmpfs /dev rw,nosuid rw,size=5%,mode=755,inode64",
        "devpts devpts /dev/pts rw,nosuid,noexec,relatime rw,gid=3,mode=620,ptmxmode=666",
        "tmpfs tmpfs /dev/shm rw,nosuid,nodev rw,inode64",
        "proc proc /proc rw,nosuid,nodev,noexec,relatime rw",
        "sysfs sysfs /sys rw,nosuid,nodev,noexec,relatime rw",
        "tmpfs tmpfs /run rw,nosuid,nodev rw,size=25%,mode=755,inode64",
        &format!("squashfs /dev/loop0 /nix/.ro-store ro,relatime ro,errors=continue{}", fixture.threads),
        "tmpfs tmpfs /nix/.rw-store rw,relatime rw,mode=755,inode64",
        &format!("overlay overlay /nix/store rw,relatime rw,{overlay}"),
        // made by stage 2: from now on only Nix writes to the store
        &format!("overlay overlay /nix/store ro,nosuid,nodev,relatime rw,{overlay}"),
    ];
    let mounts: Vec<_> = report
        .mounts
        .iter()
        .map(|mount| {
            let super_options = without_figures(mount, report.meminfo["MemTotal"]);
            format!("{} {} {} {} {super_options}", mount.kind, mount.source, mount.target, mount.options)
        })
        .collect();
    assert_eq!(mounts, expected);
}

/// The options of a mount's file system, with the size as a percentage of the memory: `size=5%`. Left out are half of the memory, the
/// default, which only some kernels print, and the limits of the root and of the writable layer, which depend on the memory that is left.
fn without_figures(mount: &Mount, memory_kb: u64) -> String {
    let follows_from_memory = ["/", "/nix/.rw-store"].contains(&mount.target.as_str());
    let option = |option: &str| {
        if option.starts_with("nr_inodes=") {
            return None;
        }
        match size_kb(option) {
            Some(_) if follows_from_memory => None,
            Some(size) => match (size * 100 + memory_kb / 2) / memory_kb {
                50 => None,
                percent => Some(format!("size={percent}%")),
            },
            None => Some(option.to_owned()),
        }
    };
    mount.super_options.split(',').filter_map(option).collect::<Vec<_>>().join(",")
}

fn size_kb(option: &str) -> Option<u64> {
    option.strip_prefix("size=")?.strip_suffix('k')?.parse().ok()
}

fn a_8_the_limits_are_less_than_the_memory_that_is_left(fixture: &Fixture) {
    let report = fixture.report();
    let size = |target| {
        let mount = report.mounts.iter().find(|mount| mount.target == target).unwrap();
        mount.super_options.split(',').find_map(size_kb).unwrap_or_else(|| panic!("no size: {mount:?}"))
    };
    let (limits, left) = (size("/") + size("/nix/.rw-store"), report.boot["memory_before"].as_u64().unwrap());
    assert!((left / 2..left).contains(&limits), "{limits} of {left} kB");
}

fn the_initramfs_is_gone_and_its_memory_back(fixture: &Fixture) {
    // The store image remains: it has no name any more, and the loop device reads it.
    let report = fixture.report();
    let loop_files: Vec<_> = report.loop_files.iter().map(|(device, file)| (device.as_str(), file.as_str())).collect();
    let retained = fixture.is_retained();
    // The path in /sys, which was mounted outside of the root.
    let file = if retained { "/firmware/initrd" } else { "/nix-store.squashfs (deleted)" };
    assert_eq!(loop_files, [("loop0", file)]);

    // The pages of a ramfs are unevictable: this sum is the memory of the initramfs, as long as no program locks memory. Up to a quarter
    // of a MiB may not be counted yet. The smallest file that could be left, firn-init, is larger.
    let image = fixture.build().manifest.files.iter().find(|file| file.name == "nix-store.squashfs").unwrap();
    let image = if retained { 0 } else { image.bytes / 1024 };
    let held = report.meminfo["Unevictable"];
    assert!(held.abs_diff(image) <= 256, "{held} kB are held and the store image has {image} kB");

    // The kernel has also freed the memory of the packed ramdisk, unless the image is still there.
    let freed = report.dmesg.iter().any(|line| line.text.starts_with("Freeing initrd memory: "));
    assert_eq!(freed, !retained);
}

fn the_kernel_is_the_systems(fixture: &Fixture) {
    assert_eq!(fixture.report().kernel_release, fixture.build().manifest.kernel_release);
    let version = fixture.kernel.split('-').next().unwrap();
    assert!(fixture.report().kernel_release.starts_with(&format!("{version}.")));
}

fn stage_1_says_what_the_boot_was_like(fixture: &Fixture) {
    let (boot, manifest) = (&fixture.report().boot, &fixture.build().manifest);
    assert_eq!(boot["init"], manifest.init.as_str());
    assert_eq!(boot["toplevel"], manifest.toplevel.as_str());
    assert_eq!(boot["hand_over"], "classic");
    assert_eq!(boot["kernel_release"], manifest.kernel_release.as_str());
    let path = manifest.images[0].path.as_str();
    let source = if fixture.is_retained() { place::INITRD } else { path };
    assert_eq!(boot["images"], serde_json::json!([{"path": path, "source": source}]));
    assert_eq!(boot["warnings"], serde_json::json!([]));
    let memory = |key: &str| boot[key].as_u64().unwrap_or_else(|| panic!("{key} of {boot:#}"));
    for key in ["memory_before", "memory_after"] {
        assert!((1..fixture.report().meminfo["MemTotal"]).contains(&memory(key)), "{boot:#}");
    }

    let steps = boot["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "early mounts",
            "command line",
            "plan",
            "host id",
            "modules",
            "devices",
            "image",
            "root",
            "store",
            "system",
            "etc",
            "registration",
            "files",
            "credentials",
            "activation",
            "units",
            "hand-over"
        ]
    );
    let times: Vec<_> =
        steps.iter().flat_map(|step| [&step["start"], &step["end"]]).map(serde_json::Value::as_u64).collect();
    assert!(times.is_sorted() && times[0] > Some(0), "{boot:#}");
}

fn the_limit_on_log_lines_is_the_kernels_again(fixture: &Fixture) {
    assert_eq!(fixture.report().log_limit, "ratelimit");
}

fn user_namespaces_can_be_made(fixture: &Fixture) {
    // In a chroot even root gets EPERM.
    assert_succeeded(command(fixture.report(), &["unshare", "--user", "true"]));
}

fn the_root_is_tagged_as_nixos(fixture: &Fixture) {
    assert_eq!(fixture.report().paths["/etc/NIXOS"].as_deref(), Some("/etc/NIXOS"));
}

fn the_system_profile_is_the_system(fixture: &Fixture) {
    for path in ["/nix/var/nix/profiles/system", "/run/current-system", "/run/booted-system"] {
        assert_eq!(fixture.report().paths[path].as_ref(), Some(&fixture.build().manifest.toplevel), "{path}");
    }
    // It is also a root of the garbage collector, apart from those that stage 2 makes.
    let roots = command(fixture.report(), &["nix-store", "--gc", "--print-roots"]);
    let profile = format!("/nix/var/nix/profiles/system-1-link -> {}", fixture.build().manifest.toplevel);
    assert!(roots.stdout.lines().any(|root| root == profile), "{roots:#?}");
}

fn the_contents_of_the_store_are_what_is_registered(fixture: &Fixture) {
    let verify = command(fixture.report(), &["nix-store", "--verify", "--check-contents"]);
    assert_succeeded(verify);
    let said: Vec<_> = verify.stderr.lines().collect();
    // Only its progress, and no message about a path.
    assert_eq!(
        said,
        [
            "reading the Nix store...",
            "checking path existence...",
            "checking link hashes...",
            "checking store hashes..."
        ]
    );
}

fn the_closure_is_the_builders(fixture: &Fixture) {
    let query = command(fixture.report(), &["nix-store", "--query", "--requisites", "/run/current-system"]);
    assert_succeeded(query);
    assert_eq!(sorted_lines(&query.stdout), fixture.build().closure);
}

fn the_store_takes_a_new_path(fixture: &Fixture) {
    let add = command(fixture.report(), &["nix-store", "--add", "/tmp/firn-probe-new"]);
    assert_succeeded(add);
    assert!(add.stdout.starts_with("/nix/store/") && add.stdout.ends_with("-firn-probe-new\n"), "{add:#?}");
}

fn the_store_refuses_direct_writes(fixture: &Fixture) {
    let touch = command(fixture.report(), &["touch", "/nix/store/firn-probe-direct"]);
    assert_eq!(touch.status, Some(1), "{touch:#?}");
    assert!(touch.stderr.contains("Read-only file system"), "{touch:#?}");
}

fn garbage_collection_leaves_the_system_whole(fixture: &Fixture) {
    let report = fixture.report();
    let collect = command(report, &["nix-collect-garbage"]);
    assert_succeeded(collect);
    // The collection deleted the path that was added before: nothing refers to it.
    assert!(collect.stderr.contains("-firn-probe-new'"), "{collect:#?}");
    let query = command(report, &["nix-store", "--query", "--requisites", "/nix/var/nix/profiles/system"]);
    assert_succeeded(query);
    assert_eq!(sorted_lines(&query.stdout), fixture.build().closure);
    let verify = command(report, &["nix-store", "--verify"]);
    assert_succeeded(verify);
    assert!(!verify.stderr.contains("/nix/store/"), "{verify:#?}");
}

/// Must fail: proves that a boot only passes because of its report.
#[test]
fn a_boot_without_a_report_has_failed() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("probe=silent");
    let error = boot(&machine).unwrap_err().to_string();
    // The machine worked and switched itself off, as the console shows; that does not count.
    assert!(error.starts_with("no report (Ended)"), "{error}");
    assert!(error.contains("Running the probe"), "{error}");
}

#[test]
fn a_machine_that_does_not_start_is_no_boot_that_failed() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("bzImage");
    // QEMU refuses the first kernel. It starts the second, and the machine hangs.
    for (size, reason) in [(16, "invalid kernel header"), (1 << 20, "before it reached its time limit")] {
        fs::write(&kernel, vec![0; size]).unwrap();
        let machine = Machine { time_limit: Duration::from_secs(5), ..Machine::new(&kernel) };
        let error = boot(&machine).unwrap_err().to_string();
        assert!(error.contains("the machine did not start") && error.contains(reason), "{error}");
        assert!(!error.contains("no report"), "{error}");
    }
}
