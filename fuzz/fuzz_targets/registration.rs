//! The registration of store paths: the paths without references to them are those that the whole registration tells.
#![no_main]

use firn::formats::registration::{parse, unreferenced};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let found = unreferenced(text);
    if let Ok(all) = parse(text) {
        let refers =
            |path: &str| all.iter().any(|other| other.path != path && other.references.iter().any(|to| to == path));
        let expected: Vec<_> = all.iter().map(|known| &known.path).filter(|path| !refers(path)).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
});
