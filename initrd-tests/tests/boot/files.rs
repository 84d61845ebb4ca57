//! The files of one host, appended to a ramdisk that many hosts use.

use super::failures::shows;
use super::fixture::{self, Fixture, boot, run, with_appended, with_appended_to};
use super::modules::WITH_DISKS;
use super::{LINUX_6_1, LINUX_7, assert_succeeded, systemd};
use initrd_tests::Report;
use qemu::Machine;
use std::path::Path;
use std::process::Command;

/// The machine of a fixture with files of its host in the ramdisk, which is made in the directory `work`.
fn machine(fixture: &Fixture, work: &Path) -> Machine {
    with_appended(
        fixture,
        work,
        "umask 077 && mkdir -p firn/root/etc/ssh && echo key > firn/root/etc/ssh/key && chown 12:34 firn/root/etc/ssh/key && \
         echo secret > firn/root/etc/secret && chmod 640 firn/root/etc/secret",
    )
}

#[test]
fn what_is_appended_to_the_ramdisk_is_in_the_root() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = machine(&LINUX_6_1, work.path());
    machine.append("probe=files");
    files_are_there(&boot(&machine).unwrap());
}

fn files_are_there(report: &Report) {
    let [stat, cat] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    // The standard mode of /etc/ssh, in spite of the umask.
    let expected = "755 0:0 /etc\n755 0:0 /etc/ssh\n600 12:34 /etc/ssh/key\n640 0:0 /etc/secret\n";
    assert_eq!(stat.stdout, expected, "{stat:#?}");
    assert_eq!(cat.stdout, "key\nsecret\n", "{cat:#?}");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

#[test]
fn b_1_an_etc_that_is_an_overlay_takes_files_unless_it_is_immutable() {
    let (work, fixture) = (tempfile::tempdir().unwrap(), &systemd::NIXOS_INIT);
    let mut machine = machine(fixture, work.path());
    machine.append(&format!("init={}/probe/init firn.register=none probe=files", fixture.build().manifest.toplevel));
    files_are_there(&boot(&machine).unwrap());

    // A machine without its keys boots, and says so on the console, too. The host id takes the place of the system's.
    machine.append("firn.etc=immutable firn.hostid=deadbeef probe=files,hostid");
    let outcome = machine.run().unwrap();
    let report = fixture::report(&outcome).unwrap();
    assert_eq!(report.commands.last().unwrap().stdout, "deadbeef\n", "{:#?}", report.commands);
    let mut warnings = warnings(&report);
    warnings.sort_unstable();
    let advice = "remove firn.etc=immutable from the kernel command line, or put the file elsewhere";
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings.iter().all(|warning| warning.ends_with(advice)), "{warnings:#?}");
    assert!(warnings[1].starts_with("Not copying /etc/ssh: Read-only file system"), "{warnings:#?}");
    assert!(warnings[0].starts_with("Not copying /etc/secret: Read-only file system"), "{warnings:#?}");
    shows(&outcome, &["firn-init: Not copying /etc/", "/run/firn/boot.json has all warnings"]);
}

/// The warnings of stage 1.
pub fn warnings(report: &Report) -> Vec<&str> {
    report.boot["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()).collect()
}

/// Boots the machine, in which the script `/firn-test` of the host runs. Returns the report and the output of the script.
pub fn boot_with_script(machine: &mut Machine) -> (Report, String) {
    machine.append("probe=host");
    let report = boot(machine).unwrap();
    let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_succeeded(script);
    let output = script.stdout.clone();
    (report, output)
}

#[test]
fn a_7_every_kind_of_file_arrives_and_none_fails_the_boot() {
    let work = tempfile::tempdir().unwrap();
    let script = "umask 077 && mkdir -p firn/root/srv/data firn/root/var/lib/x firn/root/home/alice/.ssh firn/root/run/firn \
                  firn/root/etc/nix && cd firn/root && mkfifo etc/hostid run/firn/boot.json srv/pipe && mknod srv/null c 1 3 && \
                  mknod srv/disk b 253 0 && python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"srv/socket\")' && \
                  chown 12:34 srv/pipe && chmod 620 srv/pipe && echo key > home/alice/.ssh/authorized_keys && \
                  chmod 664 home/alice/.ssh/authorized_keys && deep=srv/d && \
                  for level in $(seq 300); do deep=$deep/d; done && mkdir -p $deep && echo deep > $deep/file && \
                  echo 'stat --format \"%F %a %u:%g %n\" /etc/hostid /srv/* /var /var/lib /home /home/alice/.ssh && \
                  cat $(find /srv -name file) && ls -A /root' > firn-test && cd ../..";
    let mut machine = with_appended(&LINUX_6_1, work.path(), script);
    let (report, output) = boot_with_script(&mut machine);
    assert_eq!(
        output.lines().collect::<Vec<_>>(),
        [
            "fifo 600 0:0 /etc/hostid",
            "directory 700 0:0 /srv/d",
            "directory 700 0:0 /srv/data",
            "block special file 600 0:0 /srv/disk",
            "character special file 600 0:0 /srv/null",
            "fifo 620 12:34 /srv/pipe",
            "socket 700 0:0 /srv/socket",
            "directory 755 0:0 /var",
            "directory 755 0:0 /var/lib",
            "directory 755 0:0 /home",
            "directory 700 0:0 /home/alice/.ssh",
            "deep"
        ]
    );
    let [host_id, keys] = warnings(&report)[..] else { panic!("{:#?}", warnings(&report)) };
    assert!(host_id.contains("/firn/root/etc/hostid") && host_id.contains("not a regular file"), "{host_id}");
    assert!(keys.starts_with("/home/alice/.ssh/authorized_keys has the mode 664"), "{keys}");
}

#[test]
fn a_7_a_file_without_its_directories_arrives() {
    // As a boot loader adds it, that makes an archive of the file alone.
    let work = tempfile::tempdir().unwrap();
    let machine = with_appended(
        &LINUX_6_1,
        work.path(),
        "mkdir -p firn/root/etc/ssh firn/root/root/.ssh && echo 5ca1ab1e > firn/root/etc/machine-id && \
         echo key > firn/root/root/.ssh/authorized_keys && chmod 600 firn/root/root/.ssh/* && \
         echo 'cat /etc/machine-id; stat --format \"%a %n\" /root/.ssh/*; ls -d /etc/ssh /var/lib/x' > firn/root/firn-test; \
         rm -r firn/root/etc/ssh; find . -type f -print0 | cpio --null --create --format=newc --quiet > ../files && \
         cat \"$0\" ../files > ../alone && exit",
    );
    let mut machine = Machine { initrd: Some(work.path().join("alone")), ..machine };
    machine.append("probe=host");
    let report = boot(&machine).unwrap();
    let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_eq!(script.stdout, "5ca1ab1e\n600 /root/.ssh/authorized_keys\n");
    // The empty directories of the builder are not in the root.
    assert!(script.stderr.contains("'/etc/ssh': No such file"), "{script:#?}");
    assert_eq!(warnings(&report), [""; 0]);
}

#[test]
fn d_3_what_kexec_run_of_nixos_images_appends_is_where_its_own_stage_1_puts_it() {
    let work = tempfile::tempdir().unwrap();
    let mut machine = with_appended(
        &LINUX_6_1,
        work.path(),
        "mkdir -p ssh firn/root && echo key > ssh/authorized_keys && echo host > ssh/ssh_host_rsa_key && \
         chmod 600 ssh/ssh_host_rsa_key && echo public > ssh/ssh_host_rsa_key.pub && echo 5ca1ab1e > machine-id && \
         for file in addrs routes-v4 routes-v6; do echo '[]' > $file.json; done && \
         echo 'cd /; stat --format \"%a %n\" etc/machine-id etc/ssh etc/ssh/* root/.ssh root/.ssh/* root/network/*' > firn/root/firn-test",
    );
    machine.append("probe=host");
    let report = boot(&machine).unwrap();
    let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_eq!(
        script.stdout,
        "644 etc/machine-id\n755 etc/ssh\n600 etc/ssh/ssh_host_rsa_key\n644 etc/ssh/ssh_host_rsa_key.pub\n700 root/.ssh\n\
         644 root/.ssh/authorized_keys\n644 root/network/addrs.json\n644 root/network/routes-v4.json\n\
         644 root/network/routes-v6.json\n",
        "{script:#?}"
    );
    assert_eq!(warnings(&report), [""; 0]);
}

#[test]
fn d_6_shells_of_stage_2_find_their_open_files() {
    // Nothing but stage 1 makes these links in this system.
    let work = tempfile::tempdir().unwrap();
    let script = "mkdir -p firn/root && echo 'cat <(echo substituted); readlink /dev/std*' > firn/root/firn-test";
    let mut machine = with_appended(&LINUX_6_1, work.path(), script);
    machine.append("probe=host");
    let report = boot(&machine).unwrap();
    let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_eq!(script.stdout, "substituted\n/proc/self/fd/2\n/proc/self/fd/0\n/proc/self/fd/1\n", "{script:#?}");
}

#[test]
fn a_7_an_overlay_for_etc_takes_files_where_it_has_links_into_the_store() {
    let (work, fixture) = (tempfile::tempdir().unwrap(), &systemd::NIXOS_INIT);
    let script = "mkdir -p firn/root/etc/systemd/system firn/root/etc/nix && echo of-host > firn/root/etc/nix/machines && \
                  echo of-host > firn/root/etc/systemd/system/x.service && \
                  echo 'cd /etc/systemd/system && cat x.service ../../nix/machines && head -n 1 ../../nix/nix.conf && \
                  grep Description firn-probe.service && ls sysinit.target.wants | head -n 1 && ls /nix/.rw-store/store && \
                  find /etc -name \".firn*\"' > firn/root/firn-test";
    let mut machine = with_appended(fixture, work.path(), script);
    machine.append(&format!("init={}/probe/init firn.register=none", fixture.build().manifest.toplevel));
    let (report, output) = boot_with_script(&mut machine);
    assert_eq!(
        output.lines().collect::<Vec<_>>(),
        [
            "of-host",
            "of-host",
            "# No network, and nobody but root.",
            "Description=What the tests want to know",
            "systemd-journald.service"
        ]
    );
    assert_eq!(warnings(&report), [""; 0]);
}

#[test]
fn a_7_a_root_that_stays_takes_files_where_activation_made_links() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk");
    run(Command::new("/sbin/mkfs.ext4").args(["-q", "-L", "state"]).arg(&disk).arg("64M")).unwrap();
    let persistent = |machine: Machine| {
        let mut machine = Machine { disks: vec![disk.clone()], ..machine };
        machine.append("boot.persistence=LABEL=state firn.register=none");
        machine
    };
    // The first boot makes the link /etc/nix, which leads into the store.
    let mut first = persistent(Machine::of_build(&WITH_DISKS.directory).unwrap());
    first.append("probe=persistence");
    boot(&first).unwrap();
    let links = |name: &str| run(Command::new("/sbin/debugfs").args(["-R", name]).arg(&disk)).unwrap();
    assert!(links("stat /etc/nix").contains("\"/etc/static/nix\""));

    let script = "mkdir -p firn/root/etc/nix && echo of-host > firn/root/etc/nix/machines && \
                  echo 'cat /etc/nix/machines; readlink /etc/nix/nix.conf; head -n 1 /etc/nix/nix.conf; ls /nix/.rw-store/store; sync' \
                  > firn/root/firn-test";
    let with_files = with_appended_to(&WITH_DISKS, work.path(), script);
    let mut machine = persistent(with_files);
    machine.append("probe=host");
    for _ in 0..2 {
        let report = boot(&machine).unwrap();
        let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
        assert_eq!(
            script.stdout, "of-host\n/etc/./static/nix/nix.conf\n# No network, and nobody but root.\n",
            "{script:#?}"
        );
        assert_eq!(warnings(&report), [""; 0]);
    }
}

#[test]
fn b_11_many_files_arrive_and_the_log_has_a_limited_number_of_warnings() {
    let work = tempfile::tempdir().unwrap();
    // 200 files in 17 directories, some of them large, and 200 that cannot be there.
    let script = "for n in $(seq 200); do d=firn/root/etc/d$((n % 17))/s; mkdir -p $d firn/root/proc/$n; \
                  head -c $((n % 50 ? 1000 : 4000000)) /dev/urandom > $d/$n; echo x > firn/root/proc/$n/x; done; \
                  (cd firn/root && find etc -type f -exec sha256sum {} +) > sums && mv sums firn/root/sums && \
                  echo 'cd / && wc -l < sums && sha256sum --check --quiet sums' > firn/root/firn-test";
    let mut machine = with_appended(&LINUX_6_1, work.path(), script);
    machine.append("loglevel=7 probe=host");
    let outcome = machine.run().unwrap();
    let report = fixture::report(&outcome).unwrap();
    assert_eq!(
        (report.commands[0].stdout.as_str(), report.commands[0].status),
        ("200\n", Some(0)),
        "{:#?}",
        report.commands
    );

    let warnings = warnings(&report);
    assert!(warnings[..200].iter().all(|warning| warning.starts_with("Not copying /proc/")), "{warnings:#?}");
    assert_eq!(warnings[200..], ["180 more warnings about these files are in /run/firn/boot.json only"]);
    // The first one is also a text for every console.
    assert_eq!(outcome.console.matches("Not copying /proc/").count(), 21);
}

#[test]
fn b_11_microcode_in_front_and_two_archives_behind() {
    for fixture in [&LINUX_6_1, &LINUX_7] {
        let work = tempfile::tempdir().unwrap();
        // The archives end after their trailers, as those of iPXE, and not on a multiple of 512 bytes. One is compressed, of any length.
        let pack = "pack() { find . -print0 | cpio --null --create --format=newc --quiet > ../whole; \
                    truncate --size $((($(grep --byte-offset --only-matching --text TRAILER ../whole | cut -d : -f 1) + 14) / 4 * 4)) ../whole; }
                    mkdir microcode plain compressed
                    cd microcode && mkdir -p kernel/x86/microcode && head -c 5003 /dev/urandom > kernel/x86/microcode/GenuineIntel.bin
                    pack; mv ../whole ../first
                    cd ../compressed && mkdir -p firn/root/etc && echo compressed > firn/root/etc/compressed
                    pack; gzip < ../whole > ../last
                    cd ../plain && mkdir -p firn/root/etc && echo plain > firn/root/etc/plain
                    echo 'cat /etc/plain /etc/compressed; ls /' > firn/root/firn-test
                    pack; head -c 516 /dev/zero > ../zeros
                    cd .. && cat first zeros \"$0\" whole zeros last > initrd";
        let initrd = fixture.build().directory.join("initrd");
        run(Command::new("sh").args(["-euc", pack]).arg(initrd).current_dir(&work)).unwrap();
        let machine = Machine::of_build(&fixture.build().directory).unwrap();
        let mut machine = Machine { initrd: Some(work.path().join("initrd")), ..machine };
        machine.append("firn.verify=full");
        let (report, output) = boot_with_script(&mut machine);
        assert!(output.starts_with("plain\ncompressed\n"), "{output}");
        assert!(!output.lines().any(|name| name == "kernel"), "{output}");
        assert_eq!(warnings(&report), [""; 0]);
        assert!(!report.dmesg.iter().any(|line| line.text.contains("unpacking failed")), "{:#?}", report.dmesg);
    }
}
