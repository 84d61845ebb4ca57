//! The files of a modprobe.d say the same to firn and to kmod.

use super::{directory, run};
use firn::build::system::modprobe;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn d_2_modprobe_d_is_read_as_kmod_reads_it() {
    let shown = |directory: &Path| {
        let shown = run(Command::new("modprobe").arg("--showconfig").arg("--config").arg(directory));
        shown.split("# End of configuration files").next().unwrap().to_owned()
    };
    // A directory for kmod is the /etc/modprobe.d of a toplevel for firn.
    let read = |files: &[(&str, &str)]| {
        let toplevel = directory();
        let directory = toplevel.path().join("etc/modprobe.d");
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        (modprobe::read(toplevel.path()).unwrap(), shown(&directory))
    };
    let (_, of_this_machine) = read(&[]);
    let files = [
        ("b.conf", "options sd_mod z\ninstall first /bin/echo 2\noptions a\\\nb x=1 y=\"a  b\"\n"),
        (
            "a.conf",
            "blacklist  sd-mod extra\noptions  sd-mod\tx=1   y\noptions none\ninstall foo-x  /bin/true   a  # c\n",
        ),
        ("c.conf", "alias eth_0 e1000_x\nalias lone\n options in_dented x\nINSTALL x y\nremove x y\ninstall nothing\n"),
        (
            "d.conf",
            "#blacklist c\nblacklist\toptions/x\noptions a-b z=\nblacklist\n\n\ninstall first /bin/false\nblacklist end",
        ),
        ("e.txt", "blacklist no\n"),
    ];
    let (firn, kmod) = read(&files);
    let kmod: Vec<_> = kmod.lines().filter(|line| !of_this_machine.lines().any(|other| other == *line)).collect();
    assert!(kmod.len() > 10, "{kmod:#?}");
    assert_eq!(firn, read(&[("shown.conf", &kmod.join("\n"))]).0, "{kmod:#?}");
}
