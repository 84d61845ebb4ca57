use super::{copy_all, in_root, mode, set_mode, write};
use std::fs;
use std::os::unix::fs::chown;

#[test]
fn a_7_standard_directories_get_standard_modes() {
    in_root("modes::a_7_standard_directories_get_standard_modes", || {
        let standard = [
            ("/var", 0o755),
            ("/var/lib", 0o755),
            ("/home", 0o755),
            ("/root", 0o700),
            ("/root/.ssh", 0o700),
            ("/etc", 0o755),
            ("/etc/ssh", 0o755),
            ("/var/tmp", 0o1777),
        ];
        for umask in [0o077, 0o002] {
            for (path, _) in standard {
                fs::create_dir_all(format!("/from{path}")).unwrap();
                fs::write(format!("/from{path}/x"), "").unwrap();
                set_mode(&format!("/from{path}"), 0o777 & !umask);
            }
            for own in ["/from/home/alice/.ssh", "/from/srv/private"] {
                fs::create_dir_all(own).unwrap();
                set_mode(own, 0o750);
            }
            assert_eq!(copy_all(), [""; 0]);
            for (path, bits) in standard {
                assert_eq!(mode(path), bits, "{path} with umask {umask:03o}");
            }
            assert_eq!((mode("/home/alice/.ssh"), mode("/srv/private")), (0o700, 0o750));
            for (path, _) in standard.iter().rev().chain(&[("/srv", 0)]) {
                fs::remove_dir_all(path).unwrap();
            }
        }
    });
}

#[test]
fn a_7_what_sshd_would_refuse_is_named() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can change owners");
    }
    in_root("modes::a_7_what_sshd_would_refuse_is_named", || {
        let keys = "/home/alice/.ssh/authorized_keys";
        write(&[
            (&format!("/from{keys}"), ""),
            ("/from/root/.ssh/authorized_keys", ""),
            ("/from/etc/ssh/ssh_host_rsa_key", ""),
            ("/from/etc/ssh/ssh_host_rsa_key.pub", ""),
            ("/from/etc/ssh/ssh_host_ed25519_key", ""),
            ("/from/etc/ssh/authorized_keys.d/alice", ""),
        ]);
        set_mode("/from/home/alice", 0o775);
        set_mode(&format!("/from{keys}"), 0o664);
        set_mode("/from/etc/ssh/ssh_host_rsa_key", 0o640);
        set_mode("/from/etc/ssh/ssh_host_ed25519_key", 0o600);
        set_mode("/from/etc/ssh/authorized_keys.d/alice", 0o646);
        chown("/from/root/.ssh/authorized_keys", Some(1000), None).unwrap();
        let mut warnings = copy_all();
        warnings.sort();
        let expected = |path, mode, user, right| {
            format!(
                "{path} has the mode {mode} and the owner {user}, and sshd refuses it; it needs the mode {right} and the owner 0"
            )
        };
        assert_eq!(
            warnings,
            [
                expected("/etc/ssh/authorized_keys.d/alice", 646, 0, 644),
                expected("/etc/ssh/ssh_host_rsa_key", 640, 0, 600),
                expected("/home/alice", 775, 0, 755),
                expected(keys, 664, 0, 644),
                expected("/root/.ssh/authorized_keys", 644, 1000, 644),
            ]
        );
        // Named, and not changed.
        assert_eq!([keys, "/home/alice", "/etc/ssh/ssh_host_rsa_key"].map(mode), [0o664, 0o775, 0o640]);
    });
}
