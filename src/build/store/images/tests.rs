use super::*;

#[test]
fn c_2_a_changed_layer_in_the_cache_is_packed_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let store_path = |name: &str, mib: u64| {
        fs::write(path(name), name.repeat(100_000)).unwrap();
        let path = path(name).to_str().unwrap().to_owned();
        Registered { path, nar_hash: format!("sha256:{name}"), nar_size: mib << 20, references: Vec::new() }
    };
    let closure = [store_path("large", 100), store_path("small", 0)];
    let layers = LayerCache { directory: path("cache"), max_images: 2 };
    let packing = Packing { compression: "gzip".parse().ok(), ..Packing::default() };
    let images = |name: &str| {
        let mut output = Directory::create(&path(name)).unwrap();
        let made = pack(&closure, &mut output, "store.squashfs", &packing, Some(&layers), Progress::Quiet).unwrap();
        output.publish().unwrap();
        made.iter().map(|image| fs::read(path(name).join(&image.name)).unwrap()).collect::<Vec<_>>()
    };
    let expected = images("first");
    assert_eq!(expected.len(), 2);
    let cached = || fs::read_dir(path("cache")).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let [layer] = cached().try_into().unwrap();
    let layer = layer.join("image");
    for damage in [|image: &mut Vec<u8>| image[1000] ^= 1, |image: &mut Vec<u8>| image.truncate(4096)] {
        let mut image = fs::read(&layer).unwrap();
        damage(&mut image);
        // Another file: the first build has a link to this one.
        fs::remove_file(&layer).unwrap();
        fs::write(&layer, image).unwrap();
        assert!(images("second") == expected);
        assert!(fs::read(&layer).unwrap() == expected[0]);
        assert_eq!(cached().len(), 1);
    }
}
