//! Nix at work in a running system, whose store has the image below and memory above.

use super::LINUX_6_1;
use super::fixture::{Build, boot, pack_with, run, sorted_lines, with_appended_to};
use super::modules::WITH_DISKS;
use firn::build::options::BuildOptions;
use firn::build::system::closure::StoreSelection;
use initrd_tests::Report;
use qemu::Machine;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// A default system, a specialisation in it, and paths that were packed by name: a package with a dependency, and a store path that is a
/// symlink.
struct Specialised {
    build: Build,
    /// The toplevel of the specialisation.
    other: String,
    package: String,
    link: String,
    /// All store paths of the image, sorted.
    paths: Vec<String>,
}

static SPECIALISED: LazyLock<Specialised> = LazyLock::new(|| {
    let other = LINUX_6_1.build().manifest.toplevel.clone();
    let made = nix_build(&format!(
        r#"
        let
          other = builtins.storePath "{other}";
          run = name: script: derivation {{
            inherit name;
            system = builtins.currentSystem;
            builder = "/bin/bash";
            # Nix kills a builder that closes its output before it exits, as the last command would.
            args = [ "-euc" "${{script}}\nexit" ];
            PATH = "/usr/bin:/bin";
          }};
          package = run "firn-b-5-package" "echo ${{run "firn-b-5-dependency" "echo 1 > $out"}} > $out";
        in
        [
          (run "firn-b-5-default" ''
            cp -r ${{other}} $out
            chmod -R u+w $out
            sed -i "s|${{other}}|$out|g" $out/init $out/activate $out/boot.json
            mkdir $out/specialisation
            ln -s ${{other}} $out/specialisation/other
          '')
          package
          (run "firn-b-5-link" "ln -s ${{run "firn-b-5-target" "echo 2 > $out"}} $out")
        ]"#
    ));
    let [toplevel, package, link] = made.as_slice() else { panic!("{made:#?}") };
    let added: Vec<PathBuf> = vec![package.into(), link.into()];
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-specialised");
    let selection = StoreSelection { added, ..StoreSelection::default() };
    let build = pack_with(toplevel, directory, |options| BuildOptions { selection, ..options }).unwrap();
    let paths = sorted_lines(&run(Command::new("nix-store").args(["--query", "--requisites"]).args(&made)).unwrap());
    Specialised { build, other, package: package.clone(), link: link.clone(), paths }
});

/// The store paths that Nix builds from an expression.
fn nix_build(expression: &str) -> Vec<String> {
    let mut nix = Command::new("nix-build");
    nix.args(["--no-out-link", "--option", "sandbox", "false", "--option", "build-users-group", ""]);
    nix.args(["--option", "substituters", "", "--expr", expression]);
    run(nix.env("NIX_PATH", "")).unwrap().lines().map(str::to_owned).collect()
}

/// The output of each part of [`SCRIPT`], by name, in the specialisation. It runs once for all tests.
static SAID: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let work = tempfile::tempdir().unwrap();
    let Specialised { build, .. } = &*SPECIALISED;
    let mut machine = with_script(build, work.path(), SCRIPT);
    machine.append(&format!("init={}/specialisation/other/init", build.manifest.toplevel));
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    assert_eq!(report.paths["/nix/var/nix/profiles/system"].as_ref(), Some(&SPECIALISED.other));
    parts(&report)
});

/// A machine of a build in which the probe runs a script.
fn with_script(build: &Build, work: &Path, script: &str) -> Machine {
    let host = format!("mkdir -p firn/root && cat > firn/root/firn-test <<'EOF'\n{BEGIN}\n{script}\nEOF\n:");
    let mut machine = with_appended_to(build, work, &host);
    machine.append("probe=host");
    machine
}

/// The output of each part of the script, by name.
fn parts(report: &Report) -> BTreeMap<String, String> {
    let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_eq!(script.status, Some(0), "{script:#?}");
    let parts = script.stdout.split("\n# ").skip(1).filter_map(|part| part.split_once('\n'));
    parts.map(|(name, output)| (name.into(), output.into())).collect()
}

/// What the scripts have in common.
const BEGIN: &str = r#"
exec 2>&1
part() { printf '\n# %s\n' "$1"; }
# The memory that a file system uses, kB.
used() { df --output=used -k "$1" | tail -n 1; }
"#;

const SCRIPT: &str = r#"
part roots; cd /nix/var/nix/gcroots/firn; for link in *; do readlink "$link"; done; cd /
part collected; nix-collect-garbage -d
part paths; ls -d /nix/store/*-*
part registration; ls /nix/store/nix-path-registration
part loaded; nix-store --load-db < /nix/.ro-store/nix-path-registration && echo yes
part verified; nix-store --verify

mkdir /tmp/a /tmp/b
head -c 3M /dev/urandom > /tmp/a/file
cp /tmp/a/file /tmp/b/file
part before-adding; used /nix/.rw-store
a=$(nix-store --option auto-optimise-store true --add /tmp/a)
b=$(nix-store --option auto-optimise-store true --add /tmp/b)
part added; stat --format %h "$a/file" "$b/file"; used /nix/.rw-store

part optimised; nix-store --optimise
part after-optimising; used /nix/.rw-store
part contents; nix-store --verify --check-contents
part deleted; nix-collect-garbage
part after-deleting; used /nix/.rw-store

part without-root; rm /nix/var/nix/gcroots/firn/*-package; nix-collect-garbage
part paths-without-root; ls -d /nix/store/*-*
part after-hiding; used /nix/.rw-store
"#;

fn said(part: &str) -> &str {
    SAID.get(part).unwrap_or_else(|| panic!("no part {part} in {:#?}", *SAID))
}

/// The number at the end of a part of the output.
fn last_number(part: &str) -> u64 {
    part.lines().rev().find(|line| !line.is_empty()).unwrap().trim().parse().unwrap()
}

fn kilobytes(part: &str) -> u64 {
    last_number(said(part))
}

#[test]
fn b_5_garbage_collection_keeps_the_default_system_its_specialisation_and_what_was_packed_by_name() {
    let Specialised { build, package, link, paths, .. } = &*SPECIALISED;
    let mut roots = vec![build.manifest.toplevel.clone(), package.clone(), link.clone()];
    roots.sort();
    assert_eq!(sorted_lines(said("roots")), roots);
    assert_eq!(sorted_lines(said("paths")), *paths, "{}", said("collected"));
    assert!(!said("verified").contains("/nix/store/"), "{}", said("verified"));
}

#[test]
fn b_5_a_collection_leaves_the_registration_in_the_image() {
    // Nix takes the file for garbage: it is no store path.
    assert!(said("registration").contains("No such file"), "{}", said("registration"));
    assert_eq!(said("loaded").trim(), "yes");
}

#[test]
fn b_5_a_path_without_its_root_can_be_deleted() {
    let gone = SPECIALISED.paths.iter().filter(|path| !said("paths-without-root").contains(*path));
    let mut names: Vec<_> = gone.map(|path| path.rsplit('-').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["dependency", "package"]);
    // They are hidden now.
    assert!(kilobytes("after-hiding") <= kilobytes("after-deleting") + 8, "{:#?}", *SAID);
}

#[test]
fn b_5_optimising_the_store_copies_no_contents_of_the_image() {
    let (before, after) = (kilobytes("added"), kilobytes("after-optimising"));
    assert!(said("optimised").contains("freed by hard-linking"), "{}", said("optimised"));
    assert!(after < before + 1024, "{before} kB before, {after} after: {}", said("optimised"));
    let contents = said("contents");
    assert!(contents.contains("checking store hashes") && !contents.contains("/nix/store/"), "{contents}");
    assert!(kilobytes("after-deleting") < kilobytes("before-adding") + 1024, "{:#?}", *SAID);
}

#[test]
fn b_5_new_paths_share_their_equal_files_with_auto_optimise_store() {
    let links: Vec<_> = said("added").lines().take(2).collect();
    assert_eq!(links, ["3", "3"]);
    let more = kilobytes("added") - kilobytes("before-adding");
    assert!((3072..3072 + 512).contains(&more), "{more} kB");
}

/// The commands of docs/living.md.
#[test]
#[ignore = "slow: run by initrd-tests/run --all"]
fn b_5_the_commands_of_the_manual_work() {
    let work = tempfile::tempdir().unwrap();
    let disk = work.path().join("disk");
    run(Command::new("/sbin/mkfs.ext4").args(["-q"]).arg(&disk).arg("400M")).unwrap();
    let mut machine = with_script(&WITH_DISKS, work.path(), MANUAL);
    machine.disks.push(disk);
    let said = parts(&boot(&machine).unwrap());
    let part = |name: &str| said.get(name).unwrap_or_else(|| panic!("no part {name} in {said:#?}"));

    assert!(part("full").contains("No space left on device"), "{said:#?}");
    assert_eq!(part("limits").trim(), "1048576");
    assert_eq!(part("installed").trim().lines().collect::<Vec<_>>(), ["package"; 2], "{said:#?}");
    assert!(part("another-system").trim().ends_with("-package"), "{said:#?}");
    let toplevel = &WITH_DISKS.manifest.toplevel;
    assert_eq!(part("on-the-disk").trim().lines().next(), Some(&**toplevel), "{said:#?}");
    assert_eq!(sorted_lines(part("on-the-disk").trim().split_once('\n').unwrap().1), WITH_DISKS.closure);
    assert!(part("verified").contains("checking") && !part("verified").contains("/nix/store/"), "{said:#?}");
    let more = last_number(part("after-installing")) - last_number(part("before-installing"));
    assert!(more < 100, "installing took {more} kB: {said:#?}");
    assert_eq!(part("copied").trim(), "yes");
}

const MANUAL: &str = r#"
set -e
mkdir /mnt /tmp/package; mount /dev/vda /mnt
system=$(readlink -f /run/current-system)

part full; mount -o remount,size=2m /nix/.rw-store
head -c 5M /dev/urandom > /tmp/large; nix-store --add /tmp/large || true
nix-collect-garbage
mount -o remount,size=80%,nr_inodes=1m /nix/.rw-store; nix-store --add /tmp/large
part limits; df --output=itotal /nix/.rw-store | tail -n 1; df -h / /nix/.rw-store > /dev/null

part installing; mkdir /tmp/package/bin; echo > /tmp/package/bin/package
package=$(nix-store --add /tmp/package)
nix-env --install "$package"
mkdir /tmp/home; nix --extra-experimental-features nix-command profile install --profile /tmp/home/profile "$package"
part installed; ls /root/.nix-profile/bin /tmp/home/profile/bin | grep package
part setting; nix-env --profile /nix/var/nix/profiles/system --set "$package"
part another-system; readlink -f /nix/var/nix/profiles/system
part rollback; nix-env --profile /nix/var/nix/profiles/system --rollback

part before-installing; used /nix/.rw-store
part installation
nix-env --store /mnt --extra-substituters 'auto?trusted=1' --profile /mnt/nix/var/nix/profiles/system --set "$system"
part after-installing; used /nix/.rw-store
part on-the-disk; readlink /mnt/nix/var/nix/profiles/system-1-link; nix-store --store /mnt --query --requisites "$system"
part verified; nix-store --store /mnt --verify
part copying; nix --extra-experimental-features nix-command copy --no-check-sigs --to /mnt "$package"
part copied; test -e "/mnt$package/bin/package" && echo yes
umount /mnt
"#;
