//! Names that others wrote into manifests, ramdisks and store images: firn writes nothing outside of its output directory because of
//! them, and no control character of them reaches the terminal.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// Unprintable characters of each kind, in a name: C0, DEL, C1, an override and an isolate of the direction.
const BAD: &str = "x\x1b[2J\x07\r\x7f\u{9b}31m\u{202e}\u{2066}y\nfirn: z";

fn bash(directory: &Path, script: &str) -> Output {
    let mut bash = Command::new("bash");
    bash.args(["-o", "pipefail", "-euc", script]).current_dir(directory).env("firn", env!("CARGO_BIN_EXE_firn"));
    bash.output().unwrap()
}

/// A directory with a ramdisk whose members have bad names and targets, the contents of one member, and a plan with them.
fn ramdisk(plan: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut initrd = Vec::new();
    for (path, mode, contents) in [
        ("firn", 0o040_755, ""),
        ("firn/plan.json", 0o100_444, plan),
        (BAD, 0o100_644, BAD),
        ("binary", 0o100_644, "a\0b"),
        (&format!("link{BAD}"), 0o120_777, BAD),
        (&format!("lib/modules/6.9{BAD}/{BAD}.ko"), 0o100_644, "x"),
        (&format!("socket{BAD}"), 0o140_755, ""),
        ("TRAILER!!!", 0, ""),
    ] {
        initrd.extend(member(path, mode, contents));
    }
    fs::write(directory.path().join("initrd"), initrd).unwrap();
    fs::write(directory.path().join("bzImage"), "a kernel").unwrap();
    directory
}

fn member(path: &str, mode: u32, contents: &str) -> Vec<u8> {
    let (bytes, name) = (contents.len(), path.len() + 1);
    let header = format!(
        "070701{0:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{bytes:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name:08x}{0:08x}{path}\0",
        0, 1
    );
    let mut member = header.into_bytes();
    for more in ["", contents] {
        member.extend(more.as_bytes());
        member.resize(member.len().next_multiple_of(4), 0);
    }
    member
}

/// Checks that neither output has an unprintable character, and that no name made a line of its own.
fn ensure_safe(command: &str, output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let bad = text.chars().find(|letter| {
            (letter.is_control() && *letter != '\n')
                || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        assert_eq!(bad, None, "{command}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("firn: z")), "{command}: {text}");
    }
}

#[test]
fn c_3_no_control_character_of_others_is_printed() {
    let bad = serde_json::to_string(BAD).unwrap();
    let plan = |init: &str, release: &str| {
        format!(
            r#"{{"version": 4, "firn": {bad}, "kernel_release": {release}, "init": {init}, "modules": [{bad}], "roots": [{bad}],
                 "images": [{{"path": "/a", "bytes": 1, "sha256": {bad}}}]}}"#
        )
    };
    for plan in [
        plan(&bad, &bad),
        plan(&bad, "\"6.9\""),
        "{}".into(),
        format!(r#"{{"version": 7, "firn": {bad}}}"#),
        format!(r#"{{"version": 4, "kernel_release": "6.9", "start": {{"kind": {bad}}}}}"#),
    ] {
        let directory = ramdisk(&plan);
        fs::create_dir(directory.path().join("bad")).unwrap();
        fs::write(directory.path().join("bad/manifest.json"), format!(r#"{{"label": {bad}}}"#)).unwrap();
        fs::create_dir(directory.path().join("kind")).unwrap();
        fs::write(directory.path().join("kind/manifest.json"), format!(r#"{{"files": [{bad}]}}"#)).unwrap();
        for command in [
            "ls initrd",
            "ls --json initrd",
            "inspect initrd",
            "inspect --json initrd",
            "inspect .",
            "inspect --json .",
            "diff initrd initrd",
            "diff . .",
            "verify .",
            "verify --json .",
            "inspect bad",
            "verify bad",
            "ipxe bad --out out",
            "boot bad",
            "inspect kind",
            "kexec kind --out out",
            "cat initrd nothing",
            "unpack initrd unpacked",
        ] {
            ensure_safe(command, &bash(directory.path(), &format!("$firn {command}")));
        }
    }
}

#[test]
fn c_3_contents_for_a_terminal_have_no_control_character() {
    let directory = ramdisk("{}");
    fs::write(directory.path().join("text"), "ä\tb\x1b[2J\n").unwrap();
    let on_terminal = |command: &str| {
        let script = format!("script --quiet --return --command '$firn {command}' /dev/null < /dev/null");
        let output = bash(directory.path(), &format!("export firn; {script}"));
        (output.status.success(), String::from_utf8(output.stdout).unwrap().replace('\r', ""))
    };
    let initrd = directory.path().join("more");
    fs::write(&initrd, [member("text", 0o100_644, "ä\tb\x1b[2J\n"), member("TRAILER!!!", 0, "")].concat()).unwrap();
    assert_eq!(on_terminal("cat more text"), (true, "ä\tb\\u{1b}[2J\n".into()));
    let (done, said) = on_terminal("cat initrd binary");
    assert!(!done && said.contains("the file is no text, and would change the terminal"), "{said}");
    // A pipe gets the contents as they are.
    let output = bash(directory.path(), "$firn cat initrd binary | od -An -c; $firn cat more text");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "   a  \\0   b\nä\tb\x1b[2J\n");
}

#[test]
fn c_3_names_of_a_manifest_stay_in_their_directory() {
    let directory = ramdisk("{}");
    let work = directory.path();
    fs::create_dir(work.join("build")).unwrap();
    fs::write(work.join("evil"), "of the attacker").unwrap();
    for name in ["bzImage", "initrd", "a", "netboot.ipxe"] {
        fs::write(work.join("build").join(name), "").unwrap();
    }
    let file = |name: &str| format!(r#"{{"name": "{name}", "bytes": 0, "sha256": ""}}"#);
    let manifest = |file_name: &str, image: &str, path: &str, label: &str, system: &str| {
        format!(
            r#"{{"label": "{label}", "system": "{system}", "cmdline": "quiet", "kernel_release": "6.9", "before_images": 0,
                 "images": [{{"file": "{image}", "path": "{path}"}}], "files": [{}, {}, {}]}}"#,
            file("bzImage"),
            file("initrd"),
            file(file_name)
        )
    };
    let before = |work: &Path| bash(work, "find . -not -path './out*' | sort").stdout;
    for (manifest, named) in [
        (manifest("../../evil", "../../evil", "/a", "x", "x86_64-linux"), r#""../../evil" is not the name of a file"#),
        (manifest("../evil", "a", "/a", "x", "x86_64-linux"), r#""../evil" is not the name of a file"#),
        (manifest("/etc/evil", "a", "/a", "x", "x86_64-linux"), r#""/etc/evil" is not the name of a file"#),
        (manifest("a", "a", "/a\\nshell", "x", "x86_64-linux"), r#""/a\nshell" is not the path of a file"#),
        (manifest("a", "a", "/a", "x\\nimgfetch x", "x86_64-linux"), r#""x\nimgfetch x" has a control character"#),
        (manifest("a", "a", "/a", "x", "x/../../../evil"), r#""x/../../../evil" is not the name of a file"#),
    ] {
        fs::write(work.join("build/manifest.json"), manifest).unwrap();
        let files = before(work);
        for command in [
            "ipxe build --split --out out/deep/er",
            "ipxe build --out out/deep/er",
            "kexec build --out out/deep/er",
            "tarball build --out out",
            "uki build --out out",
            "verify build",
            "inspect build",
            "diff build build",
        ] {
            let output = bash(work, &format!("mkdir -p out; $firn {command}"));
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{command}: {error}");
            assert!(error.lines().count() == 1 && error.contains(named), "{command}: no {named} in {error}");
        }
        assert_eq!(before(work), files);
        assert!(bash(work, "find out -type f").stdout.is_empty());
    }
}

#[test]
fn c_3_the_registration_of_a_foreign_image_is_no_text_for_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let path = BAD.replace('\n', "");
    fs::write(directory.path().join("nix-path-registration"), format!("/nix/store/{path}\nsha256:1\n1\n\n0\n"))
        .unwrap();
    for command in ["inspect image", "inspect --json image", "diff image image"] {
        let pack = "[[ -e image ]] || mksquashfs nix-path-registration image -quiet -no-progress";
        let output = bash(directory.path(), &format!("{pack}; $firn {command}"));
        ensure_safe(command, &output);
        let said = [output.stdout, output.stderr].concat();
        assert!(String::from_utf8(said).unwrap().contains("is no store path"), "{command}");
    }
}

#[test]
fn c_3_the_program_prints_in_one_place() {
    for entry in fs::read_dir("src/bin/firn").unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let prints = ["println!(", "print!(", "io::stdout()", "io::stderr()"].iter().any(|word| text.contains(word));
        assert_eq!(
            prints,
            path.ends_with("text.rs"),
            "{}: print by text.rs, which escapes control characters",
            path.display()
        );
    }
}
