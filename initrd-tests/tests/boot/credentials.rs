//! Credentials and facts that systemd-stub adds to the ramdisk.

use super::fixture::{Fixture, boot, pack_with, run, with_appended};
use super::systemd::{NIXOS_INIT, PREPARE_ROOT_6_12};
use super::ways::ovmf;
use super::{LINUX_6_1, command};
use firn::build::options::BuildOptions;
use firn::build::ways::build_directory::BuildDirectory;
use firn::build::ways::uki;
use firn::host::progress::Progress;
use initrd_tests::Report;
use qemu::{Loader, Machine};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Makes credentials that anybody can decrypt, in the directories of systemd-stub. Debian's systemd 252 calls this key tpm2-absent.
pub const EXTRA: &str = "
encrypt() { printf %s \"$3\" | systemd-creds encrypt --with-key=tpm2-absent --name=$2 - $1/$2.cred; }
mkdir -p .extra/credentials .extra/global_credentials
encrypt .extra/credentials firn.image 'of one image'
encrypt .extra/global_credentials firn.image 'not this one'
encrypt .extra/global_credentials firn.global 'of all images'";

/// What the unit of the demo system gets of these credentials, and of a third one.
pub fn received(word: &str) -> String {
    format!("firn.global:of all images\nfirn.image:of one image\nfirn.word:{word}\n")
}

/// The commands of the probe about credentials: the files and their modes, the list of systemd, and the output of the unit.
pub fn said(report: &Report) -> [&initrd_tests::Command; 3] {
    let first =
        report.commands.iter().position(|command| command.argv.last().unwrap().contains("credentials/@*")).unwrap();
    [0, 1, 2].map(|number| &report.commands[first + number])
}

const DIRECTORIES: &str = "755 credentials\n700 credentials/@encrypted\n";

#[test]
fn b_6_a_unit_decrypts_the_credentials_of_a_unified_kernel_image() {
    let work = tempfile::tempdir().unwrap();
    // With this module stage 1 knows that QEMU has no credentials, so systemd gets the variable.
    let toplevel = &PREPARE_ROOT_6_12.build().manifest.toplevel;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-credentials");
    let modules = vec!["qemu_fw_cfg".into()];
    let build = pack_with(toplevel, directory, |options| BuildOptions { modules, ..options }).unwrap();

    // A stub with a signature for the TPM and its key: sections behind its own.
    let prepare = format!(
        "{EXTRA}
         mkdir -p disk/EFI/BOOT disk/loader
         mv .extra/credentials disk/EFI/BOOT/BOOTX64.EFI.extra.d
         mv .extra/global_credentials disk/loader/credentials
         echo '{{}}' > signature
         echo key > key
         objcopy --add-section .pcrsig=signature --change-section-vma .pcrsig=0x20000 --add-section .pcrpkey=key \
           --change-section-vma .pcrpkey=0x30000 /usr/lib/systemd/boot/efi/linuxx64.efi.stub stub"
    );
    run(Command::new("sh").args(["-euc", &prepare]).current_dir(&work)).unwrap();
    let options = uki::UkiOptions {
        stub: Some(work.path().join("stub")),
        append: "panic=-1 probe=credentials".into(),
        ..uki::UkiOptions::default()
    };
    let disk = work.path().join("disk");
    let directory = BuildDirectory::open(&build.directory).unwrap();
    uki::image(&directory, &disk.join("EFI/BOOT/BOOTX64.EFI"), &options, Progress::Quiet).unwrap();
    let loader = Loader::Uefi { firmware: ovmf(), directory: disk, network: false };
    let time_limit = Duration::from_mins(4);
    let machine = Machine { loader, time_limit, ..Machine::new(build.directory.join("bzImage")) };
    let report = boot(&machine).unwrap();

    let [files, list, unit] = said(&report);
    let credentials = "400 credentials/@encrypted/firn.global\n400 credentials/@encrypted/firn.image\n";
    let facts = "444 systemd/tpm2-pcr-public-key.pem\n444 systemd/tpm2-pcr-signature.json\n";
    assert_eq!(files.stdout, format!("{DIRECTORIES}{credentials}{facts}"));
    assert!(
        files.stderr.contains("touch: cannot touch 'credentials/@encrypted/new': Read-only file system"),
        "{files:#?}"
    );
    let names: Vec<_> = list.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["firn.global", "firn.image"], "{list:#?}");
    assert_eq!(unit.stdout, received("the unit has a default"), "{unit:#?}");
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

/// Boots a system with files that a script makes in `.extra`, and returns the report.
fn with_extra(fixture: &Fixture, script: &str, words: &str) -> Report {
    let work = tempfile::tempdir().unwrap();
    let mut machine =
        with_appended(fixture, work.path(), &format!("mkdir -p .extra/credentials; cd .extra; {script}; cd .."));
    machine.append(words);
    boot(&machine).unwrap()
}

#[test]
fn b_6_a_system_for_nixos_init_gets_all_files() {
    let facts = "echo 1 > profile; echo ID=x > os-release; echo s > boot-secret; echo '{}' > tpm2-pcr-signature.json";
    let toplevel = &NIXOS_INIT.build().manifest.toplevel;
    let words = format!("init={toplevel}/probe/init firn.register=none probe=credentials");
    let report = with_extra(&NIXOS_INIT, &format!("echo x > credentials/x.cred; {facts}"), &words);
    let files = "400 credentials/@encrypted/x\n444 systemd/tpm2-pcr-signature.json\n400 systemd/stub/boot-secret\n\
                 444 systemd/stub/os-release\n444 systemd/stub/profile\n";
    assert_eq!(said(&report)[0].stdout, format!("{DIRECTORIES}{files}"));
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
}

#[test]
fn b_6_an_odd_file_is_a_warning_and_the_others_arrive() {
    let script =
        "cd credentials; echo x > 'a b.cred'; echo x > bad:name.cred; echo x > .cred; echo x > plain; mkfifo fifo.cred
        mkdir directory.cred; ln -s /firn/plan.json link.cred; truncate --size 1048577 large.cred; cd ..
        ln -s / global_credentials; mkdir sysext; mkfifo profile; mkdir os-release";
    let report = with_extra(&LINUX_6_1, script, "probe=credentials");
    let files = command(&report, &["sh", "-c", &said(&report)[0].argv[2]]);
    assert_eq!(files.stdout, format!("{DIRECTORIES}400 credentials/@encrypted/a b\n"));
    let mut warnings: Vec<_> =
        report.boot["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()).collect();
    warnings.sort_unstable();
    let about = |path: &str, reason: &str| format!("/.extra/{path} does not reach the running system: {reason}");
    let name = "it is not named NAME.cred, with a NAME of ASCII without a colon";
    let regular = "it is not a regular file";
    assert_eq!(
        warnings,
        [
            about("credentials/.cred", name),
            about("credentials/bad:name.cred", name),
            about("credentials/directory.cred", regular),
            about("credentials/fifo.cred", regular),
            about("credentials/large.cred", "it is too large: there is room for 1 MiB in all"),
            about("credentials/link.cred", regular),
            about("credentials/plain", name),
            about("global_credentials", "it is for a systemd in the ramdisk, or newer than this firn"),
            about("os-release", regular),
            about("profile", regular),
            about("sysext", "it is for a systemd in the ramdisk, or newer than this firn"),
        ]
    );
}
