use super::*;
use crate::build::store::layers;
use crate::formats::registration::Registered;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const RECIPE: &str = "a recipe";

fn open(directory: &TempDir) -> OpenCache {
    OpenCache::open(&directory.path().join("cache"), RECIPE.into(), Progress::Quiet).unwrap()
}

fn path(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().join("cache").join(name)
}

/// A layer of two store paths, which is not in the cache.
fn layer(cache: &OpenCache) -> Layer {
    let path = |name: &str, mib: u64| Registered {
        path: format!("/nix/store/{name}"),
        nar_hash: format!("sha256:{name}"),
        nar_size: mib << 20,
        references: Vec::new(),
    };
    let (mut layers, _) = layers::plan(cache, &[path("a", 100), path("b", 100), path("etc", 1)], 2).unwrap();
    assert_eq!(layers.len(), 1);
    layers.remove(0)
}

/// Puts a layer into the cache whose image is this text.
fn put(directory: &TempDir, cache: &OpenCache, image: &str) -> Result<()> {
    let file = directory.path().join("image");
    fs::write(&file, image).unwrap();
    let entry = describe(&file, Progress::Quiet).unwrap();
    cache.put(&layer(cache), &file, &entry)?;
    // The cache has its own name of the file.
    fs::remove_file(file)?;
    Ok(())
}

/// Takes the layer: the text of its image, or the reason why there is none.
fn take(directory: &TempDir, cache: &OpenCache) -> Result<String, String> {
    let to = directory.path().join("taken");
    let taken = cache.take(&layer(cache), &to).unwrap();
    assert_eq!(to.exists(), matches!(taken, Cached::Whole(_)), "{taken:?}");
    match taken {
        Cached::Whole(_) => {
            let text = fs::read_to_string(&to).unwrap();
            fs::remove_file(to).unwrap();
            Ok(text)
        }
        Cached::Missing => Err("missing".into()),
        Cached::Damaged(file, reason) => Err(format!("{}: {reason}", file.display())),
    }
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(path(directory, "")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn c_2_a_layer_appears_by_one_rename() {
    let directory = TempDir::new().unwrap();
    let cache = open(&directory);
    let key = layer(&cache).key;
    assert_eq!(take(&directory, &cache), Err("missing".into()));
    put(&directory, &cache, "an image").unwrap();
    assert_eq!(names(&directory), [key.as_str()]);
    assert_eq!(take(&directory, &cache), Ok("an image".into()));
    // Other users may read it if the umask allows it.
    assert_eq!(fs::metadata(path(&directory, &key)).unwrap().mode() & 0o500, 0o500);
    assert_eq!(cache.known().unwrap().len(), 1);
    // Another build has put the same layer there; the other one stays, or this one.
    put(&directory, &cache, "an image").unwrap();
    assert_eq!(names(&directory), [key.as_str()]);
    // A file that has the name of a layer.
    fs::remove_dir_all(path(&directory, &key)).unwrap();
    fs::write(path(&directory, &key), "no layer").unwrap();
    let error = take(&directory, &cache).unwrap_err();
    assert!(error.contains("Not a directory"), "{error}");
    put(&directory, &cache, "an image").unwrap();
    assert_eq!(take(&directory, &cache), Ok("an image".into()));
    assert_eq!(names(&directory), [key]);
}

#[test]
fn c_2_a_layer_takes_the_name_of_another() {
    let directory = TempDir::new().unwrap();
    let of = |name: &str| directory.path().join(name);
    let make = |name: &str| {
        fs::create_dir_all(of(name)).unwrap();
        fs::write(of(name).join("file"), name).unwrap();
    };
    let read = |name: &str| fs::read_to_string(of(name).join("file")).ok();
    let cannot = |_: &Path, _: &Path| Err(io::ErrorKind::Unsupported.into());
    make("new");
    make("name");
    publish(&of("new"), &of("name"), &of("old"), exchange).unwrap();
    assert_eq!((read("name"), read("new"), read("old")), (Some("new".into()), Some("name".into()), None));
    make("new");
    make("name");
    publish(&of("new"), &of("name"), &of("old"), cannot).unwrap();
    assert_eq!((read("name"), read("new"), read("old")), (Some("new".into()), None, Some("name".into())));
    // Nothing to publish.
    assert!(publish(&of("missing"), &of("name"), &of("not/there"), cannot).is_err());
    assert_eq!(read("name"), Some("new".into()));
}

#[test]
fn c_2_a_changed_layer_in_the_cache_is_not_used() {
    let directory = TempDir::new().unwrap();
    let cache = open(&directory);
    put(&directory, &cache, "an image").unwrap();
    let of = |name: &str| path(&directory, &layer(&cache).key).join(name);
    let (image, json) = (of(IMAGE), of(DESCRIPTION));
    let description = fs::read_to_string(&json).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(description.contains(from), "{description}");
        description.replacen(from, to, 1)
    };
    for (file, contents, expected) in [
        (&image, String::new(), "image: it has 0 bytes instead of 8"),
        (&image, "an image ".into(), "image: it has 9 bytes instead of 8"),
        (&image, "an imagE".into(), "image: its SHA-256 is "),
        (&json, String::new(), "description.json: EOF while parsing"),
        (&json, "{".into(), "description.json: EOF while parsing"),
        (&json, changed("\"bytes\":8", "\"bytes\":9"), "image: it has 8 bytes instead of 9"),
        (&json, changed("\"sha256\":\"", "\"sha256\":\"0"), " instead of 0"),
        (&json, changed("/nix/store/b", "/nix/store/c"), "description.json: it describes other store paths"),
    ] {
        fs::write(file, &contents).unwrap();
        let error = take(&directory, &cache).unwrap_err();
        assert!(error.contains(expected), "no {expected:?} in {error}");
        put(&directory, &cache, "an image").unwrap();
        assert_eq!(take(&directory, &cache), Ok("an image".into()), "{contents}");
        assert_eq!(fs::read_to_string(&json).unwrap(), description);
    }
    for (file, expected) in [(&image, "image: No such file"), (&json, "description.json: No such file")] {
        fs::remove_file(file).unwrap();
        let error = take(&directory, &cache).unwrap_err();
        assert!(error.contains(expected), "{error}");
        put(&directory, &cache, "an image").unwrap();
    }
    // A pipe would block the build for ever.
    for file in [&image, &json] {
        fs::remove_file(file).unwrap();
        assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
        let error = take(&directory, &cache).unwrap_err();
        assert!(error.contains("it is no regular file"), "{error}");
        put(&directory, &cache, "an image").unwrap();
    }
    assert_eq!(names(&directory).len(), 1, "nothing is left behind");
}

#[test]
fn c_2_another_recipe_has_other_layers() {
    let directory = TempDir::new().unwrap();
    let cache = open(&directory);
    put(&directory, &cache, "an image").unwrap();
    let other = OpenCache::open(&path(&directory, ""), "mksquashfs 5".into(), Progress::Quiet).unwrap();
    assert_eq!(other.known().unwrap().len(), 0);
    assert_eq!(take(&directory, &other), Err("missing".into()));
    put(&directory, &other, "another image").unwrap();
    assert_eq!(take(&directory, &other), Ok("another image".into()));
    assert_eq!(take(&directory, &cache), Ok("an image".into()));
}

#[test]
fn c_2_leftovers_of_killed_builds_are_deleted() {
    let directory = TempDir::new().unwrap();
    let cache = open(&directory);
    for (name, file) in [(".firn-x1y2z3", "image"), ("notes", "image")] {
        fs::create_dir(path(&directory, name)).unwrap();
        fs::write(path(&directory, name).join(file), "").unwrap();
    }
    put(&directory, &cache, "an image").unwrap();
    let mut kept = [layer(&cache).key, "notes".into()];
    kept.sort();
    assert_eq!(names(&directory), kept);
}

#[test]
fn c_2_several_builds_put_the_same_layer() {
    let directory = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let directory = &directory;
            scope.spawn(move || {
                let cache = open(directory);
                let file = directory.path().join(format!("image-{number}"));
                fs::write(&file, "an image").unwrap();
                let entry = describe(&file, Progress::Quiet).unwrap();
                let to = directory.path().join(format!("taken-{number}"));
                for _ in 0..10 {
                    cache.put(&layer(&cache), &file, &entry).unwrap();
                    let Cached::Whole(_) = cache.take(&layer(&cache), &to).unwrap() else { panic!("not whole") };
                    assert_eq!(fs::read_to_string(&to).unwrap(), "an image");
                    fs::remove_file(&to).unwrap();
                }
            });
        }
    });
    assert_eq!(names(&directory).len(), 1);
}

#[test]
fn c_2_a_layer_has_the_time_of_its_last_use() {
    let directory = TempDir::new().unwrap();
    let cache = open(&directory);
    put(&directory, &cache, "an image").unwrap();
    let of_layer = || File::open(path(&directory, &layer(&cache).key)).unwrap();
    of_layer().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    take(&directory, &cache).unwrap();
    let age = of_layer().metadata().unwrap().modified().unwrap().elapsed().unwrap();
    assert!(age < Duration::from_hours(1), "{age:?}");
}

#[test]
fn c_2_a_directory_that_cannot_be_a_cache() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    for bad in [directory.path().join("file"), "/proc/firn".into()] {
        let error = format!("{:#}", OpenCache::open(&bad, RECIPE.into(), Progress::Quiet).unwrap_err());
        let expected =
            format!("opening the layer cache {}; give a directory of yours with --layer-cache", bad.display());
        assert!(error.starts_with(&expected), "{error}");
    }
    // One that others can write to is used, with a sentence.
    let open_to_all = path(&directory, "");
    fs::create_dir(&open_to_all).unwrap();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
    put(&directory, &open(&directory), "an image").unwrap();
}
