use super::*;
use crate::build::output::checked::describe;
use crate::build::store::cache::Cached;
use crate::build::store::packing::Packing;
use crate::build::store::recipe;
use crate::host::progress::Progress;
use std::fs;

fn path(name: &str, mib: u64) -> Registered {
    Registered {
        path: format!("/nix/store/{name}"),
        nar_hash: format!("sha256:{name}"),
        nar_size: mib << 20,
        references: Vec::new(),
    }
}

fn names(paths: &[Registered]) -> String {
    paths.iter().filter_map(|path| path.path.rsplit('/').next()).collect::<Vec<_>>().join(" ")
}

/// Plans a build and carries out the part that concerns the cache: returns the layers, each with a + if it was in the cache,
/// and the rest.
fn build(layers: &LayerCache, closure: &[Registered], packing: &Packing) -> Vec<String> {
    let cache = OpenCache::open(&layers.directory, recipe::of(packing).unwrap(), Progress::Quiet).unwrap();
    let (planned, rest) = plan(&cache, closure, layers.max_images).unwrap();
    let taken = layers.directory.with_extension("taken");
    let mut said = Vec::new();
    for layer in &planned {
        let was_there = matches!(cache.take(layer, &taken).unwrap(), Cached::Whole(_));
        if was_there {
            fs::remove_file(&taken).unwrap();
        } else {
            let image = layers.directory.with_extension("image");
            fs::write(&image, names(&layer.paths)).unwrap();
            cache.put(layer, &image, &describe(&image, Progress::Quiet).unwrap()).unwrap();
            fs::remove_file(image).unwrap();
        }
        let Cached::Whole(entry) = cache.take(layer, &taken).unwrap() else { panic!("{}", layer.key) };
        assert_eq!(fs::read_to_string(&taken).unwrap(), names(&layer.paths));
        assert_eq!(entry.bytes, names(&layer.paths).len() as u64);
        fs::remove_file(&taken).unwrap();
        said.push(format!("{}{}", if was_there { "+" } else { "" }, names(&layer.paths)));
    }
    said.push(names(&rest));
    said
}

fn cache(directory: &tempfile::TempDir, max_images: usize) -> LayerCache {
    LayerCache { directory: directory.path().join("cache"), max_images }
}

#[test]
fn unchanged_layers_are_taken_from_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let layers = cache(&directory, 3);
    let packing = Packing::default();
    let first = [path("a", 100), path("b", 100), path("c", 100), path("d", 100), path("etc", 1), path("top", 0)];
    assert_eq!(build(&layers, &first, &packing), ["a b", "c d", "etc top"]);
    // The same again; a small path that changes; a large one.
    assert_eq!(build(&layers, &first, &packing), ["+a b", "+c d", "etc top"]);
    let [a, b, c, d, _, top] = first.clone();
    let second = [a.clone(), b, c.clone(), d.clone(), path("etc2", 2), top.clone()];
    assert_eq!(build(&layers, &second, &packing), ["+a b", "+c d", "etc2 top"]);
    let third = [a, path("b2", 100), c, d, path("etc2", 2), top];
    assert_eq!(build(&layers, &third, &packing), ["a b2", "+c d", "etc2 top"]);
    // A path with another hash is another path, and each packing has its own layers.
    let mut fourth = third.clone();
    fourth[3].nar_hash = "sha256:other".into();
    assert_eq!(build(&layers, &fourth, &packing), ["+a b2", "c d", "etc2 top"]);
    let small = Packing { block_size: Some(4096), ..Packing::default() };
    assert_eq!(build(&layers, &first, &small), ["a b", "c d", "etc top"]);
    assert_eq!(build(&LayerCache { max_images: 1, ..layers.clone() }, &first, &packing), ["a b c d etc top"]);
}

#[test]
fn paths_with_many_references_are_packed_with_the_small_ones() {
    let references = (0..1000).map(|number| format!("/nix/store/{number}")).collect();
    let system_path = Registered { references, ..path("system-path", 5) };
    let closure = [path("a", 800), path("b", 5), path("etc", 1), system_path];
    let (large, changing) = split(&closure, closure.to_vec());
    assert_eq!([names(&large), names(&changing)], ["a b", "etc system-path"]);
}

#[test]
fn small_stores_have_no_layers() {
    let directory = tempfile::tempdir().unwrap();
    let layers = cache(&directory, 5);
    assert_eq!(build(&layers, &[path("a", 1), path("b", 2)], &Packing::default()), ["a b"]);
    assert_eq!(build(&layers, &[path("a", 5), path("b", 0)], &Packing::default()), ["a", "b"]);
}
