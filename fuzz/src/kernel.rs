//! The kernel's own formats: its command line, its image, the lists of its modules.

use firn::formats::cmdline::{CommandLine, parameter};
use firn::formats::kernel_image;
use firn::formats::kernel_line::KernelLine;
use firn::formats::kernel_parameters::KernelParameters;
use firn::formats::modules::{Index, Texts, fits, module_name};
use std::collections::HashSet;
use std::convert::Infallible;

/// Any bytes have words, and words without quotes inside can be written and read again.
pub fn cmdline(line: &[u8]) {
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
}

/// A line that is made of words or of text can be written and read again, and the kernel reads the same words.
pub fn line(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let lines = [KernelLine::of_words(&text.split('\0').collect::<Vec<_>>()), KernelLine::of_text(text)];
    for line in lines.into_iter().flatten() {
        let written = line.to_string();
        assert!(!written.contains(char::is_control));
        assert_eq!(KernelLine::of_text(&written).as_ref(), Ok(&line));
        assert!(CommandLine::parse(written.as_bytes()).iter().count() <= line.for_kernel().len());
    }
}

/// The release of a kernel is a word of the image. Its parameters are in tables.
pub fn image(image: &[u8]) {
    if let Some(release) = kernel_image::release(image) {
        assert!(!release.is_empty() && !release.contains(' '));
        assert!(image.windows(release.len()).any(|bytes| bytes == release.as_bytes()));
    }
    // No kernel of this size has all of its tables.
    assert!(KernelParameters::of_image(image).is_none());
}

/// depmod's files: a load order has each file once, and names the missing modules.
pub fn modules(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
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
        // A name with a colon is the alias of a device, although its end may look like the name of a module.
        let unknown = name.contains(':') || !known.contains(module_name(name).as_str());
        assert!(names.contains(&name) && unknown);
    }

    for (pattern, alias) in names.iter().zip(names.iter().skip(1)) {
        assert!(fits("*", pattern));
        if !pattern.contains(['*', '?', '[']) {
            assert_eq!(fits(pattern, alias), pattern.replace('-', "_") == alias.replace('-', "_"));
            assert!(fits(&format!("{pattern}*"), &format!("{pattern}{alias}")));
        }
    }
}
