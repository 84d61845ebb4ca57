//! The actions of a person at the console after a boot failed.

use super::LINUX_6_1;
use super::failures::{shows, with_plan};
use super::fixture::boot;
use qemu::{Exit, Machine};
use std::time::Duration;

const MENU: &str = "any other key: ";

/// The shell's prompt. Before it, the shell asks the terminal for the position of its cursor.
const PROMPT: &str = "firn-init:";

fn machine(words: &str) -> Machine {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append(words);
    machine
}

#[test]
fn what_is_mended_in_the_shell_is_tried_again() {
    let mut machine = machine("firn.store=/elsewhere boot.shell_on_fail firn.register=none probe=facts");
    machine.when("there is no store image /elsewhere", "");
    machine.when(MENU, "i");
    machine.when(PROMPT, "tty; ls /bin/mount; (sleep 1000 &); ln -s /nix-store.squashfs /elsewhere\n");
    machine.when(PROMPT, "exit\n");
    machine.when(MENU, "c");
    let report = boot(&machine).unwrap();
    assert_eq!(report.loop_files["loop0"], "/nix-store.squashfs (deleted)");
    // The first attempt has left no mount behind.
    assert_eq!(report.mounts.iter().filter(|mount| mount.kind == "squashfs").count(), 1, "{:#?}", report.mounts);
    let logged = |text: &str| report.dmesg.iter().any(|line| line.text.ends_with(text));
    assert!(logged("Killing sleep, which still runs from stage 1"), "{:#?}", report.dmesg);
}

#[test]
fn a_mended_root_goes_on_where_the_boot_failed() {
    let mut machine = machine("firn.root.size=64k firn.register=required boot.shell_on_fail probe=facts");
    machine.when("the root is full", "");
    machine.when(MENU, "i");
    machine.when(PROMPT, "mount -o remount,size=80% /mnt-root; echo ro''ot $?\n");
    machine.when("root 0", "exit\n");
    machine.when(MENU, "c");
    let report = boot(&machine).unwrap();
    let said = |text: &str| report.dmesg.iter().filter(|line| line.text.ends_with(text)).count();
    assert_eq!(said("Using the root of the previous attempt again"), 1, "{:#?}", report.dmesg);
    // Nothing is loaded or mounted twice.
    assert_eq!(
        report.dmesg.iter().filter(|line| line.text.contains("Loading /lib/modules")).count(),
        LINUX_6_1.build().manifest.modules.len()
    );
    let layers = ["/nix/.ro-store", "/nix/.rw-store"];
    let mounts = report.mounts.iter().filter(|mount| layers.contains(&mount.target.as_str()));
    assert_eq!(mounts.count(), layers.len(), "{:#?}", report.mounts);
    assert!(report.boot["steps"].as_array().unwrap().iter().any(|step| step["name"] == "registration"));
}

#[test]
fn every_console_shows_the_reasons() {
    // One of the two consoles is a screen, which the shell reads here.
    let mut machine = machine("console=tty0 console=ttyS0 init=relative boot.shell_on_fail boot.trace");
    machine.when(MENU, "i");
    machine.when(PROMPT, "cat /dev/vcs1; tty\n");
    machine.when("/dev/ttyS0", "exit\n");
    machine.when(MENU, "r");
    let outcome = machine.run().unwrap();
    assert_eq!(outcome.exit, Exit::Ended);
    let reason = "because  the path is relative";
    // boot.trace also shows the log, in spite of the demo's loglevel=4.
    shows(&outcome, &["firn-init[1]: store: done", reason, reason, "reboot: Restarting system"]);
}

#[test]
fn the_boot_stops_where_it_is_told_to() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = with_plan(work.path(), "s/\"host_id\": null/\"host_id\": \"deadbeef\"/");
    machine.append("boot.debug1 boot.debug1devices rd.break probe=facts");
    for (look, there) in [
        ("ls -d /sys/module/squashfs; echo 1-$?", "1-1"),
        ("ls -d /sys/module/squashfs; ls -d /mnt-root; echo $(hostid)-$?", "deadbeef-1"),
        ("ls -d /mnt-root/nix/store/*-nixos-system-*; echo 3-$?", "3-0"),
    ] {
        machine.when("the boot stops here", "");
        machine.when(MENU, "i");
        machine.when(PROMPT, &format!("{look}\n"));
        machine.when(there, "exit\n");
        machine.when(MENU, "\n");
    }
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

#[test]
fn a_shell_can_take_the_place_of_firn_init() {
    let mut machine = machine("init=relative boot.shell_on_fail");
    machine.when(MENU, "f");
    machine.when(PROMPT, "echo process $$; tty; sleep 100\n");
    // Ctrl-C reaches the shell: the terminal is its controlling terminal.
    machine.when("process 1", "");
    machine.when("/dev/ttyS0", "\x03");
    machine.when(PROMPT, "echo o > /proc/sysrq-trigger\n");
    let outcome = machine.run().unwrap();
    assert_eq!(outcome.exit, Exit::Ended);
    shows(&outcome, &["process 1", "/dev/ttyS0", "reboot: Power down"]);
}

/// A machine that stops at its start, where a person stops the output of the serial line (Ctrl-S) and goes on with the boot, which fails.
fn with_stopped_line(words: &str) -> Machine {
    let mut machine = machine(&format!("boot.debug1 init=relative boot.shell_on_fail {words}"));
    machine.when(MENU, "\x13\n");
    machine.time_limit = Duration::from_secs(90);
    machine
}

#[test]
fn a_6_a_stopped_serial_line_does_not_stop_the_countdown() {
    let machine = with_stopped_line("loglevel=5 firn.on_failure=reboot,3");
    let outcome = machine.run().unwrap();
    assert_eq!(outcome.exit, Exit::Ended, "{}", outcome.last_words());
    // The kernel's own messages do not wait for the line. Those of stage 1 say what it waited for.
    shows(&outcome, &["The boot failed: ", "Writing to /dev/ttyS0: waited 5 s for it", "reboot: Restarting system"]);
    assert!(!outcome.console.contains("because  the path is relative"), "the line was not stopped");
}

#[test]
fn a_6_a_serial_line_that_goes_on_shows_the_menu() {
    let mut machine = with_stopped_line("");
    // Ctrl-Q
    machine.when("The boot failed: ", "\x11");
    machine.when(MENU, "i");
    machine.when(PROMPT, "tty\n");
    machine.when("/dev/ttyS0", "exit\n");
    machine.when(MENU, "r");
    let outcome = machine.run().unwrap();
    assert_eq!(outcome.exit, Exit::Ended, "{}", outcome.last_words());
    shows(&outcome, &["because  the path is relative", "/dev/ttyS0", MENU, "reboot: Restarting system"]);
}
