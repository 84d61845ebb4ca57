//! The Nix files: they can be parsed, and the NixOS module evaluates configurations as it should. `boot` boots its outputs.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The standard output of a command that succeeds.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The value of an expression that reads only the files of this repository.
fn evaluate(expression: &str) -> Value {
    let mut nix = Command::new("nix-instantiate");
    nix.args(["--eval", "--strict", "--json", "--expr", expression]).env("NIX_PATH", "").current_dir(top());
    serde_json::from_str(&run(&mut nix)).unwrap()
}

#[test]
fn every_file_parses() {
    let files = run(Command::new("find")
        .args([".", "-name", "target", "-prune", "-o", "-name", "*.nix", "-print"])
        .current_dir(top()));
    assert!(files.lines().count() > 10, "{files}");
    run(Command::new("nix-instantiate").arg("--parse").args(files.lines()).current_dir(top()));
}

#[test]
fn the_module_makes_of_configurations_what_it_should() {
    let checks = evaluate("import ./initrd-tests/nix/checks.nix { }");
    assert_eq!(checks["wrong"], Value::Array(Vec::new()), "{:#}", checks["wrong"]);
    assert!(checks["count"].as_u64() > Some(30));
}

#[test]
fn b_5_the_module_refuses_to_optimise_the_store_and_names_what_nix_keeps() {
    let checks = evaluate("(import ./initrd-tests/nix/checks.nix { }).names");
    for name in ["optimising the store", "the paths that Nix keeps"] {
        assert!(checks.as_array().unwrap().contains(&name.into()), "no check {name}: {checks:#}");
    }
    the_module_makes_of_configurations_what_it_should();
}

#[test]
fn c_4_the_module_measures_the_command_line_and_knows_the_oldest_kernel() {
    let checks = evaluate("(import ./initrd-tests/nix/checks.nix { }).names");
    for name in [
        "a kernel that is too old",
        "a kernel that is too old for an overlay for /etc",
        "a command line that the kernel would cut",
        "a parameter that the kernel would cut",
        "the command line",
    ] {
        assert!(checks.as_array().unwrap().contains(&name.into()), "no check {name}: {checks:#}");
    }
    the_module_makes_of_configurations_what_it_should();
}

#[test]
fn c_13_the_module_allows_kernels_without_some_of_the_modules() {
    let checks = evaluate("(import ./initrd-tests/nix/checks.nix { }).names");
    let name = "kernels without some of the modules";
    assert!(checks.as_array().unwrap().contains(&name.into()), "no check {name}: {checks:#}");
    the_module_makes_of_configurations_what_it_should();
}

#[test]
fn d_2_the_table_of_the_manual_is_the_one_that_is_tested() {
    let table = evaluate("(import ./initrd-tests/nix/checks.nix { }).table");
    let manual = fs::read_to_string(top().join("docs/nixos.md")).unwrap();
    let table = format!("table.nix -->\n{}\n<!-- end -->", table.as_str().unwrap());
    assert!(manual.contains(&table), "docs/nixos.md lacks this table:\n{table}");
}

#[test]
fn the_flake_has_what_it_should() {
    // With a substitute for nixpkgs that only shows the arguments of the package.
    let flake = evaluate(
        r#"
        let
          lib = {
            genAttrs = names: of: builtins.listToAttrs (map (name: { inherit name; value = of name; }) names);
            importTOML = file: builtins.fromTOML (builtins.readFile file);
            fileset = { unions = files: map builtins.pathExists files; toSource = { fileset, ... }: fileset; };
            optional = wanted: value: if wanted then [ value ] else [ ];
            optionals = wanted: list: if wanted then list else [ ];
            optionalString = wanted: text: if wanted then text else "";
            optionalAttrs = wanted: set: if wanted then set else { };
            makeBinPath = packages: toString packages;
            licenses = { mit = "MIT"; asl20 = "Apache-2.0"; };
          };
          pkgs = {
            inherit lib;
            callPackage = file: arguments:
              let package = import file; in
              package (builtins.intersectAttrs (builtins.functionArgs package) pkgs // arguments);
            pkgsStatic = pkgs;
            rustPlatform = { bindgenHook = "hook"; buildRustPackage = set: set // set.passthru // { outPath = "/" + set.pname; }; };
            makeWrapper = "makeWrapper";
            installShellFiles = "installShellFiles";
            stdenv = { buildPlatform.canExecute = _: true; hostPlatform = { }; };
            nix = "nix"; squashfsTools = "squashfs"; erofs-utils = "erofs";
          };
          flake = import ./flake.nix;
          outputs = flake.outputs {
            self = outputs;
            nixpkgs = { inherit lib; legacyPackages = { x86_64-linux = pkgs; aarch64-linux = pkgs; }; };
          };
          plain = package: { inherit (package) pname version src cargoBuildFlags buildNoDefaultFeatures; inherit (package.env) RUSTFLAGS; };
        in
        {
          inputs = builtins.attrNames flake.inputs;
          outputs = builtins.attrNames outputs;
          packages = builtins.attrNames outputs.packages.aarch64-linux;
          modules = builtins.attrNames outputs.nixosModules;
          firn = plain outputs.packages.x86_64-linux.default;
          init = plain outputs.packages.x86_64-linux.firn-init;
          install = outputs.packages.x86_64-linux.firn.postInstall;
          overlay = (outputs.overlays.default pkgs pkgs).firn.pname;
          plain = (import ./default.nix { inherit pkgs; }).firn-init.pname;
        }"#,
    );
    assert_eq!(flake["inputs"], serde_json::json!(["nixpkgs"]));
    assert_eq!(flake["outputs"], serde_json::json!(["checks", "devShells", "nixosModules", "overlays", "packages"]));
    assert_eq!(flake["packages"], serde_json::json!(["default", "firn", "firn-init"]));
    assert_eq!(flake["modules"], serde_json::json!(["default", "netboot"]));
    assert_eq!((&flake["overlay"], &flake["plain"]), (&"firn".into(), &"firn-init".into()));
    for package in ["firn", "init"] {
        assert_eq!(flake[package]["version"], env!("CARGO_PKG_VERSION"));
        assert!(flake[package]["src"].as_array().unwrap().iter().all(|there| there == true), "{flake:#}");
    }
    assert_eq!(flake["init"]["buildNoDefaultFeatures"], true);
    assert!(flake["init"]["RUSTFLAGS"].as_str().unwrap().contains("target-feature=+crt-static"));
    assert!(flake["install"].as_str().unwrap().contains("ln -s /firn-init/bin/firn-init $out/bin/firn-init"));
}

#[test]
fn a_foreign_reader_finds_nothing_in_the_script_for_nixos_anywhere() {
    let script = fs::read_to_string(top().join("nix/kexec-run.sh")).unwrap().replace("@carry@", "/etc/a /etc/b");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    fs::write(&path, script).unwrap();
    run(Command::new("shellcheck").arg(&path));
}

/// Runs the unit that sets root's password, and returns the commands that it ran.
fn password(shadow: &str, cmdline: &str) -> String {
    let script = evaluate("(import ./initrd-tests/nix/checks.nix { }).password");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("shadow"), shadow).unwrap();
    fs::write(path("cmdline"), cmdline).unwrap();
    for (name, contents) in [("usermod", "echo usermod \"$@\""), ("chpasswd", "echo chpasswd; cat")] {
        fs::write(path(name), format!("#!/bin/sh\n{contents}\n")).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let place = |name: &str| path(name).to_str().unwrap().to_owned();
    let script =
        script.as_str().unwrap().replace("/etc/shadow", &place("shadow")).replace("/proc/cmdline", &place("cmdline"));
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let output: Output = Command::new("bash").args(["-euc", &script]).env("PATH", path).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn root_gets_the_password_of_the_command_line_if_it_has_none() {
    let (none, some) = ("bin:*:1\nroot::1::::::\n", "root:$6$x:1::::::\nother::1::::::\n");
    for (shadow, cmdline, expected) in [
        (none, "init=/x live.nixos.passwordHash=$6$a=b/c quiet\n", "usermod --password $6$a=b/c root\n"),
        (none, "live.nixos.password=a*b", "chpasswd\nroot:a*b\n"),
        (none, "quiet\n", ""),
        (some, "live.nixos.password=secret\n", ""),
    ] {
        assert_eq!(password(shadow, cmdline), expected, "{cmdline}");
    }
}
