//! Files of a host at paths that the system has, too; and the secrets of stage 1.

use super::files::{boot_with_script, warnings};
use super::fixture::{Fixture, with_appended};
use super::{LINUX_7, systemd};
use initrd_tests::Report;
use std::sync::LazyLock;

/// The system has a file at the path of the first one, a symlink at that of the second, and a symlink to a directory around the third.
const FILES: &str = "mkdir -p firn/root/etc/nix .initrd-secrets/etc .initrd-secrets/run/keys && \
                     echo of-host > firn/root/etc/hostname && ln -s hostname firn/root/etc/os-release && \
                     echo of-host > firn/root/etc/nix/machines && echo > .initrd-secrets/etc/secret-1 && \
                     echo > .initrd-secrets/run/secret-2 && printf abcd > .initrd-secrets/etc/hostid";

/// Looks at the files, activates the running system once more, and looks again. Then it looks for the secrets.
const SCRIPT: &str = "look() { cat /etc/hostname /etc/os-release /etc/nix/machines; readlink /etc/os-release; \
                      head -n 1 /etc/nix/nix.conf; hostid; }; look; \
                      $(readlink /run/current-system)/activate 2>&1 | grep create; look; \
                      find / /run -xdev -name \"*secret*\"";

/// The classic system, on the newest kernel.
static CLASSIC: LazyLock<(Report, String)> = LazyLock::new(|| look(&LINUX_7, ""));

/// Boots a system with the files. Returns its report and the output of the script.
fn look(fixture: &Fixture, words: &str) -> (Report, String) {
    let work = tempfile::tempdir().unwrap();
    let script = format!("{FILES} && echo '{SCRIPT}' > firn/root/firn-test");
    let mut machine = with_appended(fixture, work.path(), &script);
    machine.append(&format!("firn.register=none {words}"));
    boot_with_script(&mut machine)
}

/// What the script sees before and after the activation, which says that it cannot create these paths.
fn stays(output: &str, host_id: &str, refused: &[&str]) {
    let seen = format!("of-host\nof-host\nof-host\nhostname\n# No network, and nobody but root.\n{host_id}\n");
    let refused = refused.iter().fold(String::new(), |all, path| all + "could not create symlink " + path + "\n");
    assert!(output.starts_with(&format!("{seen}{refused}{seen}")), "{output}");
}

#[test]
fn b_1_a_classic_system_has_the_files_of_its_host() {
    let (report, output) = &*CLASSIC;
    assert_eq!(report.boot["hand_over"], "classic");
    // Without an /etc/hostid this is the address of the host name.
    let host_id = output.lines().nth(5).unwrap();
    stays(output, host_id, &["/etc/hostname", "/etc/nix", "/etc/os-release"]);
    assert_eq!(warnings(report), [""; 0]);
}

#[test]
fn b_2_secrets_of_stage_1_stay_in_stage_1() {
    let (report, output) = &*CLASSIC;
    // As in NixOS, /run is the only way out.
    let secrets: Vec<_> = output.lines().filter(|line| line.contains("secret")).collect();
    assert_eq!(secrets, ["/run/secret-2"]);
    let copied = |line: &initrd_tests::LogLine| line.text.ends_with("Copied 3 files from /.initrd-secrets");
    let before = report.dmesg.iter().position(copied).unwrap();
    assert!(before < report.dmesg.iter().position(|line| line.text.contains("modules: done in")).unwrap());
}

#[test]
fn b_1_a_system_with_prepare_root_has_the_files_and_the_id_of_its_host() {
    let fixture = &systemd::PREPARE_ROOT_6_1;
    let init = format!("init={}/probe/init", fixture.build().manifest.toplevel);
    // The system has another host id.
    let (report, output) = look(fixture, &format!("{init} firn.hostid=deadbeef"));
    assert_eq!(report.boot["hand_over"], "prepare-root");
    stays(&output, "deadbeef", &["/etc/hostid", "/etc/hostname", "/etc/nix", "/etc/os-release"]);
    assert_eq!(warnings(&report), [""; 0]);
}
