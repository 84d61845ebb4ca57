//! Patterns of `modules.alias`: the names and the devices of a kernel module.

/// Whether an alias (a name, or the `modalias` of a device) fits a pattern: `*` is any text, `?` one character, `[0-9a]` one of
/// these characters, `[!0-9]` one of the others. `-` and `_` are the same, as in names of modules (fnmatch(3) after `alias_normalize` of
/// kmod's `shared/util.c`, which leaves the sets of the pattern as they are).
///
/// The time is at most the product of both lengths, for every pattern.
#[must_use]
pub fn fits(pattern: &str, alias: &str) -> bool {
    let (mut pattern, mut alias) = (pattern.as_bytes(), alias.as_bytes());
    // The pattern after the last `*`, and the rest of the alias where it is tried next. Earlier `*` need no second try: the last one
    // can match the same text.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, alias) {
            ([b'*', rest @ ..], _) => {
                pattern = rest;
                retry = Some((rest, alias));
                continue;
            }
            ([], []) => return true,
            (_, [byte, after @ ..]) => {
                if let Some(rest) = after_one(pattern, *byte) {
                    (pattern, alias) = (rest, after);
                    continue;
                }
            }
            _ => {}
        }
        let Some((rest, [_, after @ ..])) = retry else { return false };
        (pattern, alias) = (rest, after);
        retry = Some((rest, after));
    }
}

/// The rest of a pattern whose first element fits this byte.
fn after_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            let (set, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
            let others = set.strip_prefix(b"!").or(set.strip_prefix(b"^"));
            (in_set(others.unwrap_or(set), underscore(byte)) != others.is_some()).then_some(rest)
        }
        _ => (underscore(*first) == underscore(byte)).then_some(rest),
    }
}

/// Whether a byte is in a set such as `0-9a`.
fn in_set(mut set: &[u8], byte: u8) -> bool {
    loop {
        set = match set {
            [first, b'-', last, ..] if (*first..=*last).contains(&byte) => return true,
            [_, b'-', _, rest @ ..] => rest,
            [one, ..] if *one == byte => return true,
            [_, rest @ ..] => rest,
            [] => return false,
        }
    }
}

fn underscore(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

/// Whether a name is an alias of a module that is built into the kernel. `modinfo` are the contents of `modules.builtin.modinfo`: records
/// `module.field=value` with a zero byte after each (`Documentation/kbuild/kbuild.rst`, Linux 5.2).
#[must_use]
pub fn is_built_in(modinfo: &[u8], name: &str) -> bool {
    builtin_aliases(modinfo).any(|(_, pattern)| fits(pattern, name))
}

/// The lines of `modules.builtin` that the contents of `modules.builtin.modinfo` tell: a file for each module in the kernel.
#[cfg(feature = "builder")]
#[must_use]
pub fn built_in(modinfo: &[u8]) -> String {
    let records = modinfo.split(|byte| *byte == 0).filter_map(|record| str::from_utf8(record).ok());
    // By name, since older kernels have no field `file`.
    let names: std::collections::BTreeSet<_> = records.filter_map(|record| Some(record.split_once('.')?.0)).collect();
    names.into_iter().flat_map(|name| [name, ".ko\n"]).collect()
}

/// The records about aliases in the contents of `modules.builtin.modinfo`, in the same form.
#[must_use]
pub fn only_aliases(modinfo: &[u8]) -> Vec<u8> {
    builtin_aliases(modinfo).flat_map(|(record, _)| [record.as_bytes(), b"\0"].concat()).collect()
}

/// Records about aliases, and the patterns in them.
fn builtin_aliases(modinfo: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    modinfo.split(|byte| *byte == 0).filter_map(|record| {
        let record = str::from_utf8(record).ok()?;
        Some((record, record.split_once('.')?.1.strip_prefix("alias=")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, alias, expected) in [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
            ("a*", "a", true),
            ("*c", "abc", true),
            ("*c", "abcd", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab", "aab", true),
            ("**a", "a", true),
            ("a?c", "abc", true),
            ("a?", "a", false),
            ("fs-ext4", "fs-ext4", true),
            ("fs-ext4", "fs_ext4", true),
            ("platform:i8042*", "platform:i8042", true),
            ("[0-9]x", "5x", true),
            ("[0-9]x", "ax", false),
            ("[0-9]", "-", false),
            ("[0-9af]", "f", true),
            ("[af_]", "-", true),
            // The alias has an underscore here, and the set does not.
            ("[af-]", "-", false),
            ("[!0-9]x", "ax", true),
            ("[!0-9]x", "5x", false),
            ("[^a]", "b", true),
            ("[!]", "a", true),
            ("[0-9", "0", false),
            ("[]", "]", false),
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000001v00001AF4", false),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", true),
            ("usb:v*p*d02[0-9]*dc*", "usb:v0001p0002d0210dc00", true),
        ] {
            assert_eq!(fits(pattern, alias), expected, "{pattern} {alias}");
        }
    }

    #[test]
    fn a_9_aliases_of_built_in_modules() {
        let modinfo = b"ext4.license=GPL\0ext4.alias=fs-ext4\0x.author=\xff\0i8042.alias=platform:i8042*\0x.alias\0";
        for (name, expected) in [("fs_ext4", true), ("platform:i8042", true), ("ext4", false), ("GPL", false)] {
            assert_eq!(is_built_in(modinfo, name), expected, "{name}");
        }
        let aliases = only_aliases(modinfo);
        assert_eq!(aliases, b"ext4.alias=fs-ext4\0i8042.alias=platform:i8042*\0");
        assert_eq!(only_aliases(&aliases), aliases);
    }

    /// The definition, which takes exponential time.
    fn fits_by_definition(pattern: &[u8], alias: &[u8]) -> bool {
        match (pattern, alias) {
            ([], _) => alias.is_empty(),
            ([b'*', rest @ ..], _) => (0..=alias.len()).any(|taken| fits_by_definition(rest, &alias[taken..])),
            ([b'?', rest @ ..], [_, after @ ..]) => fits_by_definition(rest, after),
            ([one, rest @ ..], [byte, after @ ..]) => one == byte && fits_by_definition(rest, after),
            (_, []) => false,
        }
    }

    #[test]
    fn all_short_patterns_mean_what_the_definition_says() {
        let texts = |letters: &[u8], length: u32| -> Vec<String> {
            let count = letters.len();
            (0..=length)
                .flat_map(|length| (0..count.pow(length)).map(move |number| (length, number)))
                .map(|(length, number)| {
                    (0..length).map(|place| char::from(letters[number / count.pow(place) % count])).collect()
                })
                .collect()
        };
        let aliases = texts(b"ab", 5);
        for pattern in texts(b"ab*?", 4) {
            for alias in &aliases {
                let expected = fits_by_definition(pattern.as_bytes(), alias.as_bytes());
                assert_eq!(fits(&pattern, alias), expected, "{pattern} {alias}");
            }
        }
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        assert!(!fits(&("*a".repeat(100) + "b"), &"a".repeat(4000)));
    }
}
