//! The kernel command line.
//!
//! It is split as the kernel splits it (`next_arg`, lib/cmdline.c): white space between parameters, double quotes around a value or a
//! whole parameter, no backslash. Parameters after `--` are for init and are left out.

/// The parameters of a command line, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommandLine(Vec<(String, Option<String>)>);

impl CommandLine {
    /// Splits a command line. Bytes that are no UTF-8 are replaced: no parameter of firn has any.
    #[must_use]
    pub fn parse(line: &[u8]) -> Self {
        // /proc/cmdline ends with a newline. It is no part of a value whose quotes are not closed.
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut words = Vec::new();
        for word in split(line) {
            match key_and_value(word) {
                (key, None) if key == "--" => break,
                (key, None) if key.is_empty() => {} // empty quotes
                pair => words.push(pair),
            }
        }
        Self(words)
    }

    /// The value of the last `key=value`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, value)| name == key && value.is_some()).and_then(|(_, value)| value.as_deref())
    }

    /// All parameters, in order: the key and the value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_deref()))
    }
}

/// The words of a command line as they stand there, with their quotes.
pub fn split(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let ends = move |byte: &u8| {
        quoted ^= *byte == b'"';
        !quoted && is_space(*byte)
    };
    line.split(ends).filter(|word| !word.is_empty())
}

/// White space of the kernel (`lib/ctype.c`): the non-breaking space of Latin-1 is one, too.
#[must_use]
pub fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0x0b | 0xa0)
}

/// Writes a parameter as it stands in a command line, in quotes if it has white space. A parameter with quotes inside cannot be
/// written.
#[must_use]
pub fn parameter(key: &str, value: Option<&str>) -> String {
    let word = value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}"));
    if word.bytes().any(is_space) { format!("\"{word}\"") } else { word }
}

/// Cuts a parameter at its first `=` after the first character, and removes quotes as the kernel does: at the front of the parameter
/// or of the value, and at the end. Others stay.
#[must_use]
pub fn key_and_value(word: &[u8]) -> (String, Option<String>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let whole = word.strip_prefix(b"\"");
    let word = whole.map_or(word, |inner| inner.strip_suffix(b"\"").unwrap_or(inner));
    let equals = word.iter().skip(1).position(|byte| *byte == b'=').map(|position| position + 1);
    let Some(equals) = equals else { return (text(word), None) };
    let (key, value) = (word.get(..equals).unwrap_or_default(), word.get(equals + 1..).unwrap_or_default());
    let value = match value.strip_prefix(b"\"") {
        Some(inner) => inner.strip_suffix(b"\"").unwrap_or(inner),
        None => value,
    };
    (text(key), Some(text(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splitting() {
        type Case = (&'static [u8], &'static [(&'static str, Option<&'static str>)]);
        let cases: &[Case] = &[
            (b"", &[]),
            (b" \t\n", &[]),
            (b"quiet", &[("quiet", None)]),
            (b"quiet\n", &[("quiet", None)]),
            (b"a=1 b=2", &[("a", Some("1")), ("b", Some("2"))]),
            (b"a=1\tb=2\x0bc", &[("a", Some("1")), ("b", Some("2")), ("c", None)]),
            (b"a\xa0b", &[("a", None), ("b", None)]),
            (b"a=", &[("a", Some(""))]),
            (b"=a", &[("=a", None)]),
            (b"=a=b=c", &[("=a", Some("b=c"))]),
            (b"root=UUID=12-34", &[("root", Some("UUID=12-34"))]),
            (br#"a="b c" d"#, &[("a", Some("b c")), ("d", None)]),
            (br#""a=b c" d"#, &[("a", Some("b c")), ("d", None)]),
            (br#""a b""#, &[("a b", None)]),
            (br#"a="b c"#, &[("a", Some("b c"))]),
            (b"\"a=b c\n", &[("a", Some("b c"))]),
            (br#"a=b"c d"e"#, &[("a", Some(r#"b"c d"e"#))]),
            (br#"a="""#, &[("a", Some(""))]),
            (br#""" a ""#, &[("a", None)]),
            (b"a -- b=1", &[("a", None)]),
            (br#"a "--" b=1"#, &[("a", None)]),
            (b"a --b", &[("a", None), ("--b", None)]),
            (b"\xff=1", &[("\u{fffd}", Some("1"))]),
        ];
        for (line, expected) in cases {
            let expected = expected.iter().map(|(key, value)| ((*key).into(), value.map(Into::into))).collect();
            assert_eq!(CommandLine::parse(line), CommandLine(expected), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn the_last_one_wins() {
        let cmdline = CommandLine::parse(b"init=/a init=/b init x=1");
        assert_eq!(cmdline.value("init"), Some("/b"));
        assert_eq!(cmdline.value("x"), Some("1"));
        assert_eq!(cmdline.value("y"), None);
    }

    proptest! {
        #[test]
        fn any_line_has_words(line in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(&b"  \t\"\"==-.ab"[..])], 0..60,
        )) {
            for (key, value) in CommandLine::parse(&line).iter() {
                assert!(!key.is_empty());
                assert!(!key.get(1..).unwrap_or_default().contains('='), "{key:?} {value:?}");
            }
        }

        #[test]
        fn words_that_are_written_are_read(pairs in prop::collection::vec(
            ("[^\"=\0]{1,8}", prop::option::of("[^\"\0]{0,8}")), 0..8,
        )) {
            let pairs: Vec<_> = pairs.into_iter().filter(|(key, value)| key != "--" || value.is_some()).collect();
            let line: Vec<_> = pairs.iter().map(|(key, value)| parameter(key, value.as_deref())).collect();
            assert_eq!(CommandLine::parse(line.join(" ").as_bytes()), CommandLine(pairs));
        }
    }
}
