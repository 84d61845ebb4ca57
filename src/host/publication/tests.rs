use super::*;
use crate::host::staging::Claim;
use std::collections::BTreeMap;
use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The directory in which the process of [`a_publisher_of_the_other_tests`] publishes.
const OUT: &str = "FIRN_TEST_OUT";

/// The number of the step before which this process is killed.
const KILL_AT: &str = "FIRN_TEST_KILL_AT";

static STEPS: AtomicU64 = AtomicU64::new(1);

pub fn step() {
    let number = STEPS.fetch_add(1, Ordering::Relaxed);
    if env::var(KILL_AT).is_ok_and(|at| at == number.to_string()) {
        nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::SIGKILL).unwrap();
    }
}

const NAMES: [&str; 4] = ["image", "initrd", "script", "manifest"];

fn publish_all(directory: &Path, names: &[&str], contents: &str, stale: &[&str]) -> Result<()> {
    let lock = DirectoryLock::take(directory)?;
    settle_locked(&lock)?;
    let staging = Staging::create(&lock, Claim::Directory)?;
    for name in names {
        fs::write(staging.path().join(name), contents).unwrap();
    }
    let stale: Vec<_> = stale.iter().map(|name| (*name).to_owned()).collect();
    publish(&lock, staging, names, &stale)
}

/// Publishes new files without an end, or once. It is a process of the other tests.
#[test]
fn a_publisher_of_the_other_tests() {
    let Some(out) = env::var_os(OUT) else { return };
    let once = env::var_os(KILL_AT).is_some();
    for number in 1_u64.. {
        publish_all(out.as_ref(), &NAMES, &number.to_string(), &["old-image"]).unwrap();
        if once {
            return;
        }
    }
}

fn publisher(out: &Path) -> Command {
    let mut publisher = Command::new(env::current_exe().unwrap());
    publisher.args(["--exact", "host::publication::tests::a_publisher_of_the_other_tests", "--quiet"]).env(OUT, out);
    publisher.stdout(std::process::Stdio::null());
    publisher
}

/// The files that are visible, with their contents.
fn visible(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())).collect()
}

/// Checks that all files are of one output, before and after its publication is finished.
fn check(directory: &Path, during: &str) -> BTreeMap<String, String> {
    let contents = |files: &BTreeMap<String, String>| {
        let mut contents: Vec<_> =
            files.iter().filter(|(name, _)| *name != "foreign").map(|(_, text)| text.clone()).collect();
        contents.dedup();
        contents
    };
    let files = visible(directory);
    assert!(contents(&files).len() <= 1, "{during}: a mixture: {files:?}");
    settle(directory).unwrap();
    let files = visible(directory);
    assert_eq!(contents(&files).len(), 1, "{during}: {files:?}");
    assert!(NAMES.iter().all(|name| files.contains_key(*name)), "{during}: {files:?}");
    assert_eq!(files["foreign"], "foreign");
    assert!(journals(directory).unwrap().is_empty());
    files
}

#[test]
fn c_8_a_kill_at_each_step_leaves_the_old_files_or_the_new_ones() {
    let mut outcomes = Vec::new();
    for number in 1.. {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path();
        publish_all(out, &["image", "old-image", "initrd", "script", "manifest"], "old", &[]).unwrap();
        fs::write(out.join("foreign"), "foreign").unwrap();
        let status = publisher(out).env(KILL_AT, number.to_string()).status().unwrap();
        let files = check(out, &format!("step {number}"));
        assert_eq!(files.len(), if files["manifest"] == "old" { 6 } else { 5 }, "{files:?}");
        outcomes.push(files["manifest"] == "old");
        publish_all(out, &NAMES, "next", &["old-image"]).unwrap();
        assert_eq!(fs::read_dir(out).unwrap().count(), 5, "no leftovers");
        if status.success() {
            break;
        }
    }
    // The rename that decides, five old files, four new ones, the list, the journal; and a run that is not killed.
    assert_eq!(outcomes, [vec![true], vec![false; 12]].concat());
}

#[test]
fn c_8_kills_at_random_moments_leave_the_old_files_or_the_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    publish_all(out, &NAMES, "0", &[]).unwrap();
    fs::write(out.join("foreign"), "foreign").unwrap();
    let start = Instant::now();
    let mut last = 0;
    for kill in 0..40_u64 {
        let mut child = publisher(out).spawn().unwrap();
        // The time to start, and then any moment of some publications.
        std::thread::sleep(Duration::from_micros(8000 + kill * 7919 % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        last = check(out, &format!("kill {kill}"))["manifest"].parse::<u64>().unwrap().max(last);
    }
    assert!(last > 0, "all were killed before they began, {:?}", start.elapsed());
}

#[test]
fn c_8_a_directory_in_the_way_is_named_before_anything_changes() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    publish_all(out, &["image", "initrd", "manifest"], "old", &[]).unwrap();
    fs::create_dir_all(out.join("script/inside")).unwrap();
    let before = visible(out);
    let error = publish_all(out, &NAMES, "new", &["old-image"]).unwrap_err().to_string();
    assert!(error.contains("script is a directory") && error.contains("--out"), "{error}");
    assert_eq!(visible(out), before);
    assert_eq!(fs::read_dir(out).unwrap().count(), 4);
}

#[test]
fn c_8_names_of_a_journal_stay_in_its_directory() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    fs::write(parent.path().join("outside"), "x").unwrap();
    let journal = out.join(".firn-publish-abcdef");
    for name in ["../outside", "/etc/hostname", "a/b", "", ".", "..", ".firn-abcdef", "a/"] {
        fs::create_dir_all(&journal).unwrap();
        fs::write(journal.join(".firn-claim"), "").unwrap();
        fs::write(journal.join(LIST), serde_json::json!({"files": [], "stale": [name]}).to_string()).unwrap();
        let error = format!("{:#}", settle(&out).unwrap_err());
        assert!(error.contains("interrupted") && error.contains("name"), "{name:?}: {error}");
    }
    let twice = serde_json::json!({"files": ["a"], "stale": ["a"]}).to_string();
    for list in ["{", "", &twice] {
        fs::write(journal.join(LIST), list).unwrap();
        let error = format!("{:#}", settle(&out).unwrap_err());
        assert!(error.contains("is damaged; remove ") && error.contains("/.firn-publish-abcdef, and make"), "{error}");
    }
    let error = ensure_settled(&out).unwrap_err().to_string();
    assert!(error.contains("was interrupted") && error.contains("finish it with firn verify"), "{error}");
    assert!(parent.path().join("outside").exists());
    fs::remove_file(journal.join(LIST)).unwrap();
    settle(&out).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn c_8_a_directory_that_is_no_journal_of_firn_stays() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path();
    let list = serde_json::json!({"files": [], "stale": ["notes"]}).to_string();
    for name in [".firn-publish-abc", ".firn-publish-backup", ".firn-publish-", ".firn-publish-abcdef.old"] {
        fs::create_dir(out.join(name)).unwrap();
        fs::write(out.join(name).join(LIST), &list).unwrap();
    }
    fs::write(out.join("notes"), "mine").unwrap();
    settle(out).unwrap();
    ensure_settled(out).unwrap();
    assert_eq!(fs::read_dir(out).unwrap().count(), 5);
}
