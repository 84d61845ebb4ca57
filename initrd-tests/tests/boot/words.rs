//! firn's own kernel parameters.

use super::LINUX_6_1;
use super::fixture::boot;
use qemu::Machine;

#[test]
fn firns_words_do_what_they_say() {
    let mut machine = Machine::of_build(&LINUX_6_1.build().directory).unwrap();
    machine.append("firn.root.size=300m firn.root.inodes=20k firn.rw-store.size=64m firn.rw-store.inodes=1k");
    machine.append("firn.register=none firn.rootsize=1g firn.log=warn firn.hostid=0000beef probe=hostid");
    // A part of this kernel, which the ramdisk does not list.
    machine.append("firn.modules=8250 firn.etc=immutable");
    let report = boot(&machine).unwrap();

    let options = |target: &str| &report.mounts.iter().find(|mount| mount.target == target).unwrap().super_options;
    assert_eq!(options("/"), "rw,size=307200k,nr_inodes=20480,mode=755,inode64");
    assert_eq!(options("/nix/.rw-store"), "rw,size=65536k,nr_inodes=1024,mode=755,inode64");

    // No database, but a profile that names the system.
    assert_eq!(report.paths["/nix/var/nix/db/db.sqlite"], None);
    assert_eq!(report.paths["/nix/var/nix/profiles/system"].as_ref(), Some(&LINUX_6_1.build().manifest.toplevel));

    assert_eq!(report.commands[0].stdout, "0000beef\n", "{:#?}", report.commands);

    let warning =
        "Ignoring the kernel parameter firn.rootsize=1g: there is no such parameter; did you mean firn.root.size?";
    let overlay = "firn.etc=immutable has no effect: this system has no overlay for /etc (system.etc.overlay.enable)";
    assert_eq!(report.boot["warnings"], serde_json::json!([warning, overlay]));
    let said: Vec<_> = report.dmesg.iter().filter(|line| line.text.starts_with("firn-init[1]: ")).collect();
    // Before the command line is read, everything is logged.
    let after = said.iter().skip_while(|line| !line.text.contains("command line: done")).skip(1);
    assert!(after.clone().all(|line| line.level <= 4), "{said:#?}");
    assert!(after.clone().any(|line| line.text.ends_with(warning)), "{said:#?}");
}
