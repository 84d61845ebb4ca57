//! The kernel command line: any bytes have words, and what has no quotes inside can be written and read again.
#![no_main]

use firn::formats::cmdline::{CommandLine, parameter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let words = CommandLine::parse(line);
    let pairs: Vec<_> = words.iter().collect();
    for (key, value) in &pairs {
        assert!(!key.is_empty());
        assert!(value.is_none() || words.value(key).is_some());
    }
    let quotes =
        |(key, value): &(&str, Option<&str>)| key.contains('"') || value.is_some_and(|value| value.contains('"'));
    if !pairs.iter().any(quotes) {
        let text: Vec<_> = pairs.iter().map(|(key, value)| parameter(key, *value)).collect();
        assert_eq!(CommandLine::parse(text.join(" ").as_bytes()), words);
    }
});
