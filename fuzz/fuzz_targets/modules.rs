//! depmod's files: whatever is in them, a load order has each file once and says what is missing.
#![no_main]

use firn::formats::modules::{Index, Texts, fits, module_name};
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use std::convert::Infallible;

fuzz_target!(|text: &str| {
    // The files, and then the names that are asked for, with NUL between them.
    let mut parts = text.split('\0');
    let Ok(texts) = Texts::read(|_| Ok::<_, Infallible>(parts.next().unwrap_or_default().to_owned()));
    let index = Index::parse(&texts);
    let names: Vec<_> = parts.collect();
    let order = index.load_order(&names);

    let files: HashSet<_> = order.files.iter().collect();
    assert_eq!(files.len(), order.files.len());
    let known: HashSet<_> = index.names().collect();
    for name in order.missing {
        assert!(names.contains(&name) && !known.contains(module_name(name).as_str()));
    }

    for (pattern, alias) in names.iter().zip(names.iter().skip(1)) {
        assert!(fits("*", pattern));
        if !pattern.contains(['*', '?', '[']) {
            assert_eq!(fits(pattern, alias), pattern.replace('-', "_") == alias.replace('-', "_"));
            assert!(fits(&format!("{pattern}*"), &format!("{pattern}{alias}")));
        }
    }
});
