//! firn loads what kmod would load, in kmod's order: `modprobe --show-depends` and firn's index answer the same questions about every
//! module of every kernel of the tests, about aliases, and about modules that are made to be difficult.

#[path = "kmod/modprobe_d.rs"]
mod modprobe_d;

use firn::formats::module_alias;
use firn::formats::modules::{Index, MODINFO, Texts, module_name};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The modules of a kernel, with depmod's files.
struct Tree {
    /// Its `lib/modules/<release>` has the modules.
    root: TempDir,
    release: String,
    texts: Texts,
    modinfo: Vec<u8>,
}

/// A built-in module that every tree gets. It marks the end of an answer.
const MARK: &str = "end_of_answer";

/// What a name stands for: nothing, or files to load in this order. Built-in modules have no files.
type Answer = Option<Vec<String>>;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An empty directory on the file system of the kernels: their modules are linked, not copied.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl Tree {
    /// The modules of a kernel of `qemu/kernel`.
    fn of_kernel(name: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu/kernel");
        let kernel = PathBuf::from(run(Command::new(script).arg(name)).lines().last().unwrap());
        let release = fs::read_to_string(kernel.join("release")).unwrap().trim().to_owned();
        let root = directory();
        run(Command::new("cp").args(["--archive", "--link"]).arg(kernel.join("lib")).arg(root.path()));
        Self::with_index(root, release)
    }

    fn with_index(root: TempDir, release: String) -> Self {
        let directory = root.path().join("lib/modules").join(&release);
        // The file itself has another link, in the kernel's directory.
        let builtin = fs::read_to_string(directory.join("modules.builtin")).unwrap();
        fs::remove_file(directory.join("modules.builtin")).unwrap();
        fs::write(directory.join("modules.builtin"), format!("{builtin}kernel/{MARK}.ko\n")).unwrap();
        run(Command::new("depmod").arg("--basedir").arg(root.path()).arg(&release));
        let texts = Texts::read(|name| fs::read_to_string(directory.join(name))).unwrap();
        let modinfo = fs::read(directory.join(MODINFO)).unwrap_or_default();
        // modprobe uses only the first line about a module, and firn all of them. For the comparison there is one line.
        let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in texts.softdep.lines() {
            if let Some((name, words)) = line.strip_prefix("softdep ").and_then(|line| line.split_once(' ')) {
                lines.entry(name).or_default().push(words);
            }
        }
        let merged: Vec<_> =
            lines.iter().map(|(name, words)| format!("softdep {name} {}\n", words.join(" "))).collect();
        fs::remove_file(directory.join("modules.softdep")).unwrap();
        fs::write(directory.join("modules.softdep"), merged.concat()).unwrap();
        Self { root, release, texts, modinfo }
    }

    /// kmod's answers. One process answers many questions. After each it is asked for [`MARK`].
    fn modprobe(&self, names: &[String]) -> Vec<Answer> {
        let below = format!("{}/lib/modules/{}/", self.root.path().display(), self.release);
        let mark = format!("builtin {MARK}");
        names
            .chunks(2000)
            .flat_map(|names| {
                let mut modprobe = Command::new("modprobe");
                modprobe.args(["--config", "/dev/null", "--all", "--show-depends", "--set-version", &self.release]);
                modprobe.arg("--dirname").arg(self.root.path()).arg("--");
                for name in names {
                    modprobe.args([name, MARK]);
                }
                // It fails if it does not know a name, and goes on.
                let output = String::from_utf8(modprobe.output().unwrap().stdout).unwrap();
                let mut answers: Vec<Answer> = vec![None];
                for line in output.lines().map(str::trim_end) {
                    let last = answers.last_mut().unwrap();
                    if line == mark {
                        answers.push(None);
                    } else if let Some(rest) = line.strip_prefix("insmod ") {
                        // Parameters for the module may follow, from the command line of this machine.
                        let file = rest.strip_prefix(&below).unwrap().split(' ').next().unwrap().to_owned();
                        let files = last.get_or_insert_default();
                        if !files.contains(&file) {
                            files.push(file);
                        }
                    } else {
                        assert!(line.starts_with("builtin "), "{line}");
                        last.get_or_insert_default();
                    }
                }
                assert_eq!(answers.pop(), Some(None));
                assert_eq!(answers.len(), names.len(), "modprobe stopped");
                answers
            })
            .collect()
    }

    fn firn(&self, index: &Index<'_>, name: &str) -> Answer {
        let order = index.load_order(&[name]);
        let found = order.missing.is_empty() || module_alias::is_built_in(&self.modinfo, name);
        found.then(|| order.files.into_iter().map(str::to_owned).collect())
    }

    /// Compares the answers about all names, and returns those with files.
    fn compare(&self, names: &[String]) -> Vec<(String, Vec<String>)> {
        let index = Index::parse(&self.texts);
        let mut with_files = Vec::new();
        let mut wrong = Vec::new();
        for (name, kmod) in names.iter().zip(self.modprobe(names)) {
            let firn = self.firn(&index, name);
            if firn != kmod {
                wrong.push(format!("{name}: firn {firn:?}, kmod {kmod:?}"));
            }
            with_files.extend(kmod.filter(|files| !files.is_empty()).map(|files| (name.clone(), files)));
        }
        let few = &wrong[..wrong.len().min(10)];
        assert!(wrong.is_empty(), "{} of {} names: {few:#?}", wrong.len(), names.len());
        with_files
    }

    /// The names of all modules, and of all built-in ones.
    fn names(&self) -> Vec<String> {
        let files = self.texts.dep.lines().map(|line| line.split(':').next().unwrap());
        files.chain(self.texts.builtin.lines()).map(module_name).filter(|name| name != MARK).collect()
    }

    /// Names that fit the patterns of aliases: all that are no devices, and one of `step` devices.
    fn aliases(&self, step: usize) -> Vec<String> {
        let modinfo = self.modinfo.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let builtin = modinfo.filter_map(|record| Some(record.split_once(".alias=")?.1.to_owned())).collect::<Vec<_>>();
        let lines = self.texts.alias.lines().filter_map(|line| line.strip_prefix("alias ")?.rsplit_once(' '));
        let patterns = lines.map(|(pattern, _)| pattern).chain(builtin.iter().map(String::as_str));
        let (devices, others): (Vec<_>, Vec<_>) = patterns.partition(|pattern| pattern.contains(':'));
        let all: BTreeSet<_> = others.into_iter().chain(devices.into_iter().step_by(step)).map(example).collect();
        all.into_iter().collect()
    }
}

/// A text that fits a pattern.
fn example(pattern: &str) -> String {
    let mut text = String::new();
    let mut rest = pattern.chars();
    while let Some(one) = rest.next() {
        match one {
            '*' => text.push_str("0A"),
            '?' => text.push('7'),
            '[' => {
                text.extend(rest.next());
                rest.by_ref().find(|other| *other == ']');
            }
            other => text.push(other),
        }
    }
    text
}

/// Devices of machines, as the kernel names them.
const DEVICES: [&str; 12] = [
    "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00",
    "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00",
    "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
    "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
    "pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00",
    "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02",
    "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30",
    "virtio:d00000002v00001AF4",
    "virtio:d00000001v00001AF4",
    "usb:v0951p1666d0110dc00dsc00dp00ic08isc06ip50in00",
    "cpu:type:x86,ven0000fam0006mod008E:feature:,0000,0019,0081,0094,00E3,013D",
    "acpi:PNP0F13:PNP0F03:",
];

/// Names that somebody could ask for, among them wrong ones.
const NAMES: [&str; 22] = [
    "crc32",
    "crc32c",
    "crc32-generic",
    "crypto-crc32",
    "crypto-crc32c",
    "crypto-aes",
    "crypto-xxhash64",
    "crypto-sha256",
    "fs-f2fs",
    "fs_f2fs",
    "fs-ext4",
    "fs-btrfs",
    "fs-xfs",
    "fs-tmpfs",
    "fs-nothing",
    "virtio-blk",
    "virtio_pci",
    "net-pf-10",
    "nothing",
    "",
    "a[b",
    "a]b",
];

/// Compares every module, the names and devices above, and aliases, one of `step` for devices. Returns the tree and the answers.
fn all_of_kernel(name: &str, step: usize) -> (Tree, Vec<(String, Vec<String>)>) {
    let tree = Tree::of_kernel(name);
    let mut names = tree.names();
    assert!(names.len() > 1000, "{name}: {} modules", names.len());
    names.extend(tree.aliases(step));
    names.extend(NAMES.iter().chain(&DEVICES).map(ToString::to_string));
    let answers = tree.compare(&names);
    (tree, answers)
}

#[test]
fn a_9_every_module_and_alias_of_6_1() {
    all_of_kernel("6.1", 3);
}

#[test]
fn a_9_every_module_and_alias_of_6_12() {
    all_of_kernel("6.12", 3);
}

#[test]
fn a_9_every_module_and_alias_of_7() {
    all_of_kernel("7", 3);
}

#[test]
fn a_9_every_module_of_the_generic_6_1_where_crc32_is_built_in_and_an_alias() {
    let (tree, answers) = all_of_kernel("6.1-generic", 40);
    assert!(tree.texts.builtin.lines().any(|file| module_name(file) == "crc32"));
    for asked in ["crc32", "f2fs", "fs-f2fs"] {
        let (_, files) = answers.iter().find(|(name, _)| name == asked).unwrap();
        assert!(files.iter().any(|file| module_name(file) == "crc32_generic"), "{asked}: {files:?}");
    }
}

#[test]
fn a_9_every_module_of_the_generic_6_12() {
    all_of_kernel("6.12-generic", 40);
}

/// Makes a module: a file with the facts that depmod reads. It exports a symbol with its own name, and uses those of other modules.
fn module(directory: &Path, file: &str, uses: &[&str], facts: &[&str]) {
    let name = module_name(file);
    let own = [
        ".section .modinfo,\"a\"".to_owned(),
        format!(".asciz \"name={name}\""),
        ".section __ksymtab_strings,\"a\"".to_owned(),
        format!(".asciz \"sym_{name}\""),
    ];
    let facts = facts.iter().map(|fact| format!(".section .modinfo\n.asciz \"{fact}\""));
    let uses = uses.iter().map(|other| format!(".section .text\n.quad sym_{other}"));
    let source: Vec<_> = own.into_iter().chain(facts).chain(uses).collect();
    let object = directory.join(file);
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    let assembly = object.with_extension("s");
    fs::write(&assembly, source.join("\n") + "\n").unwrap();
    run(Command::new("as").arg(&assembly).arg("-o").arg(&object));
    fs::remove_file(assembly).unwrap();
}

#[test]
fn a_9_modules_that_are_made_to_be_difficult() {
    let root = directory();
    let release = "6.9-difficult".to_owned();
    let tree = root.path().join("lib/modules").join(&release);
    // The name of a built-in module is an alias of two.
    module(&tree, "kernel/crc-generic.ko", &[], &["alias=crc", "alias=crypto-crc"]);
    module(&tree, "kernel/crc_fast.ko", &["crc_generic"], &["alias=crc", "alias=cpu:type:x86,ven*:feature:*0081*"]);
    // Soft dependencies by alias, on several lines, on unknown and on built-in modules, and in a circle.
    module(
        &tree,
        "kernel/fs/f2.ko",
        &["lib"],
        &["alias=fs-f2", "softdep=pre: crc", "softdep=pre: gone post: late one"],
    );
    module(&tree, "kernel/lib.ko", &[], &["softdep=pre: f2 post: late"]);
    module(&tree, "kernel/late.ko", &["f2"], &["softdep=post: one"]);
    module(&tree, "kernel/one.ko", &[], &["softdep=pre: two", "alias=two-or-one"]);
    module(&tree, "kernel/two.ko", &["one"], &["softdep=post: one pre: lib", "alias=two-or-one"]);
    // A built-in module and one of a package of its own; the name of a module is the alias of another.
    module(&tree, "updates/loop.ko", &["two"], &["alias=block-major-7-*"]);
    module(&tree, "kernel/named.ko", &[], &["alias=one", "alias=late"]);
    // Two of a name: depmod takes the one in updates/.
    module(&tree, "kernel/twice.ko", &[], &["alias=old-twice"]);
    module(&tree, "updates/twice.ko", &["lib"], &["alias=new-twice"]);
    module(
        &tree,
        "extra/dash-and_underscore.ko",
        &["named"],
        &[
            "alias=x-y_z",
            "alias=of:N*T*Cvendor,dash-one*",
            "alias=set:[0-9a-c]x-[x_y]",
            "alias=minus:[-]x",
            "alias=not:[!0-9]*",
            "alias=dmi:*:pnMy Box*:x*",
            "alias=path:a/late",
        ],
    );
    let builtin = "kernel/crc.ko\nkernel/drivers/loop.ko\nkernel/quiet-one.ko\n";
    fs::write(tree.join("modules.builtin"), builtin).unwrap();
    fs::write(tree.join("modules.order"), "kernel/crc_fast.ko\nkernel/crc-generic.ko\nkernel/two.ko\n").unwrap();
    let modinfo = "quiet_one.alias=fs-quiet\0quiet_one.alias=pci:v*d0000[1-3]*\0quiet_one.alias=one\0crc.license=GPL\0";
    fs::write(tree.join(MODINFO), modinfo).unwrap();
    run(Command::new("xz").args(["--check=crc32", "--quiet"]).arg(tree.join("kernel/lib.ko")));
    run(Command::new("zstd").args(["--rm", "--quiet"]).arg(tree.join("kernel/two.ko")));

    let tree = Tree::with_index(root, release);
    let mut names = tree.names();
    names.extend(tree.aliases(1));
    let asked = [
        "crc",
        "crypto_crc",
        "f2",
        "fs_f2",
        "two_or_one",
        "block-major-7-0",
        "block-major-8-0",
        "old-twice",
        "new-twice",
        "dash_and-underscore",
        "dash-and-underscore",
        "x_y-z",
        "of:NethernetT(null)Cvendor,dash_one,more",
        "set:5x_x",
        "set:5x-_",
        "set:5x--",
        "set:-x-x",
        "set:dx-x",
        "minus:-x",
        "minus:_x",
        "not:5",
        "not:a",
        "not:-",
        "dmi:bvn1:pnMy Box 2:x86:",
        "path:a/late",
        "path:b/late",
        "fs-quiet",
        "fs_quiet",
        "pci:v1d00002x",
        "pci:v1d00004x",
        "quiet_one",
        "quiet-one",
        "gone",
        "loop",
        "symbolic",
    ];
    names.extend(asked.map(String::from));
    let answers = tree.compare(&names);
    // The comparison is about files that depmod found.
    let files: HashSet<_> = answers.iter().flat_map(|(_, files)| files).collect();
    assert_eq!(files.len(), 11, "{files:#?}");
    for name in ["crc", "loop", "f2", "one", "set:5x_x", "dmi:bvn1:pnMy Box 2:x86:"] {
        assert!(answers.iter().any(|(asked, _)| asked == name), "{name} has no files");
    }
}

#[test]
fn a_9_all_soft_dependencies_of_a_module_count() {
    let tree = Tree::of_kernel("6.1");
    let index = Index::parse(&tree.texts);
    let files = index.load_order(&["btrfs"]).files;
    for name in ["xxhash_generic", "sha256_ssse3", "blake2b_generic", "crc32c_intel"] {
        assert!(files.iter().any(|file| module_name(file) == name), "{name} is not among {files:#?}");
    }
}
