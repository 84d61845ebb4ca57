//! Nix at work in a running system, whose store has the image below and memory above.

use super::LINUX_6_1;
use super::fixture::{Build, boot, pack_with, run, sorted_lines, with_appended_to};
use firn::build::options::BuildOptions;
use firn::build::system::closure::StoreSelection;
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
    let host = format!("mkdir -p firn/root && cat > firn/root/firn-test <<'EOF'\n{SCRIPT}\nEOF\n:");
    let mut machine = with_appended_to(build, work.path(), &host);
    machine.append(&format!("init={}/specialisation/other/init probe=host", build.manifest.toplevel));
    let report = boot(&machine).unwrap();
    assert_eq!(report.boot["warnings"], serde_json::json!([]));
    assert_eq!(report.paths["/nix/var/nix/profiles/system"].as_ref(), Some(&SPECIALISED.other));
    let [script] = report.commands.as_slice() else { panic!("{:#?}", report.commands) };
    assert_eq!(script.status, Some(0), "{script:#?}");
    let parts = script.stdout.split("\n# ").skip(1);
    parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).map(|(a, b)| (a.into(), b.into())).collect()
});

const SCRIPT: &str = r#"
exec 2>&1
part() { printf '\n# %s\n' "$1"; }
# The memory that the writable layer uses, kB.
used() { df --output=used -k /nix/.rw-store | tail -n 1; }

part roots; cd /nix/var/nix/gcroots/firn; for link in *; do readlink "$link"; done; cd /
part collected; nix-collect-garbage -d
part paths; ls -d /nix/store/*-*
part registration; ls /nix/store/nix-path-registration
part loaded; nix-store --load-db < /nix/.ro-store/nix-path-registration && echo yes
part verified; nix-store --verify

mkdir /tmp/a /tmp/b
head -c 3M /dev/urandom > /tmp/a/file
cp /tmp/a/file /tmp/b/file
part before-adding; used
a=$(nix-store --option auto-optimise-store true --add /tmp/a)
b=$(nix-store --option auto-optimise-store true --add /tmp/b)
part added; stat --format %h "$a/file" "$b/file"; used

part optimised; nix-store --optimise
part after-optimising; used
part contents; nix-store --verify --check-contents
part deleted; nix-collect-garbage
part after-deleting; used

part without-root; rm /nix/var/nix/gcroots/firn/*-package; nix-collect-garbage
part paths-without-root; ls -d /nix/store/*-*
"#;

fn said(part: &str) -> &str {
    SAID.get(part).unwrap_or_else(|| panic!("no part {part} in {:#?}", *SAID))
}

fn kilobytes(part: &str) -> u64 {
    said(part).lines().last().unwrap().trim().parse().unwrap()
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
