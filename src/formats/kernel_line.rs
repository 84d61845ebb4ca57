//! A kernel command line to write: a list of words, such as the kernel parameters of a bootspec, becomes the text of the line.
//!
//! The kernel reads it back by `next_arg` (lib/cmdline.c): white space separates words, except between two double quotes. There is no
//! backslash and no other quote, so that some words cannot be written. Words after `--` are for init (`set_init_arg`, init/main.c).

use crate::formats::cmdline::{is_space, key_and_value, split};
use crate::formats::printable::printable_line;
use crate::formats::secrets;
use std::error::Error;
use std::fmt;

/// The words of a command line, each as it stands there, with its quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelLine {
    /// The words for the kernel.
    kernel: Vec<String>,
    /// The words for init, which come after `--`.
    init: Vec<String>,
}

/// A word that cannot be a part of a kernel command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritable {
    word: String,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Control,
    Quote,
    Space,
}

impl KernelLine {
    /// The line of a list of words. A word with white space gets quotes, unless it has them. A word `--` begins those for init. Empty
    /// words are left out: they have no place in a line.
    ///
    /// # Errors
    ///
    /// A word with a control character: boot loaders and the kernel's EFI stub end the line there or make a space of it. A double quote
    /// that does not enclose white space as the kernel expects it.
    pub fn of_words(words: &[impl AsRef<str>]) -> Result<Self, Unwritable> {
        let mut line = Self::default();
        let mut for_init = false;
        for word in words.iter().map(AsRef::as_ref).filter(|word| !word.is_empty()) {
            line.push(quoted(word)?, &mut for_init);
        }
        Ok(line)
    }

    /// Reads a line that somebody else wrote, such as the value of an option `--append`.
    ///
    /// # Errors
    ///
    /// A control character; a quote without an end, which would take in all that comes after it; and a character such as `à`, outside of
    /// quotes, of which a byte is white space for the kernel.
    pub fn of_text(text: &str) -> Result<Self, Unwritable> {
        let mut line = Self::default();
        let mut for_init = false;
        for word in split(text.as_bytes()) {
            let Ok(word) = str::from_utf8(word) else {
                return Err(Unwritable { word: String::from_utf8_lossy(word).into_owned(), reason: Reason::Space });
            };
            if !word.matches('"').count().is_multiple_of(2) {
                return Err(Unwritable { word: word.into(), reason: Reason::Quote });
            }
            line.push(word.into(), &mut for_init);
        }
        if text.chars().any(char::is_control) {
            return Err(Unwritable { word: text.into(), reason: Reason::Control });
        }
        Ok(line)
    }

    /// Adds a word as it stands in the line.
    fn push(&mut self, word: String, for_init: &mut bool) {
        if *for_init {
            self.init.push(word);
        } else if key_and_value(word.as_bytes()) == ("--".into(), None) {
            *for_init = true;
        } else {
            self.kernel.push(word);
        }
    }

    /// Adds the words of another line: each after those of its kind.
    pub fn append(&mut self, other: Self) {
        self.kernel.extend(other.kernel);
        self.init.extend(other.init);
    }

    /// Moves words for the kernel to the front. Their order among each other stays.
    pub fn put_first(&mut self, is_first: impl Fn(&str) -> bool) {
        self.kernel.sort_by_key(|word| !is_first(word));
    }

    /// The words for the kernel, as they stand in the line.
    #[must_use]
    pub fn for_kernel(&self) -> &[String] {
        &self.kernel
    }

    /// The words for init.
    #[must_use]
    pub fn for_init(&self) -> &[String] {
        &self.init
    }

    /// All words, without the `--`.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.kernel.iter().chain(&self.init).map(String::as_str)
    }
}

impl fmt::Display for KernelLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.init.is_empty() { &[][..] } else { &["--"] };
        let words = self.kernel.iter().map(String::as_str).chain(separator.iter().copied());
        for (index, word) in words.chain(self.init.iter().map(String::as_str)).enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// A word as it stands in a command line.
fn quoted(word: &str) -> Result<String, Unwritable> {
    let refused = |reason| Err(Unwritable { word: word.into(), reason });
    if word.chars().any(char::is_control) {
        return refused(Reason::Control);
    }
    if word.contains('"') {
        let is_one = word.matches('"').count().is_multiple_of(2) && split(word.as_bytes()).eq([word.as_bytes()]);
        return if is_one { Ok(word.into()) } else { refused(Reason::Quote) };
    }
    if !word.bytes().any(is_space) {
        return Ok(word.into());
    }
    // The kernel takes quotes around the whole word, too; programs that read /proc/cmdline know these better.
    match word.split_once('=') {
        Some((key, value)) if !key.is_empty() && !key.bytes().any(is_space) => Ok(format!("{key}=\"{value}\"")),
        _ => Ok(format!("\"{word}\"")),
    }
}

/// A word for a message: without secrets, with escapes for control characters, not longer than a line.
#[must_use]
pub fn shown(word: &str) -> String {
    const LONGEST: usize = 60;
    let (key, value) = key_and_value(word.as_bytes());
    let text = secrets::shown(&key, value.as_deref());
    let text = if text.contains("(hidden)") { text } else { word.into() };
    let beginning: String = text.chars().take(LONGEST).collect();
    let dots = if beginning == text { "" } else { "…" };
    printable_line(&beginning) + dots
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel parameter {} ", shown(&self.word))?;
        f.write_str(match self.reason {
            Reason::Control => "has a control character, such as a newline or a tab, and boot loaders do not pass it to the kernel: remove it",
            Reason::Quote => {
                "has a double quote that the kernel would read otherwise: it knows quotes only in pairs, around white space, as in key=\"a b\", and \
                 no backslash; write it that way, or without quotes"
            }
            Reason::Space => {
                "ends in the middle of a character, at a byte that is white space for the kernel (0xa0): put double quotes around the value"
            }
        })
    }
}

impl Error for Unwritable {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::cmdline::CommandLine;
    use proptest::prelude::*;

    #[test]
    fn c_5_words_get_the_quotes_of_the_kernel() {
        for (word, expected) in [
            ("quiet", "quiet"),
            ("dyndbg=file drivers/usb/* +p", "dyndbg=\"file drivers/usb/* +p\""),
            ("dyndbg=\"file drivers/usb/* +p\"", "dyndbg=\"file drivers/usb/* +p\""),
            ("\"a=b c\"", "\"a=b c\""),
            ("a b=c", "\"a b=c\""),
            ("a b", "\"a b\""),
            ("=a b", "\"=a b\""),
            ("a=b; c || d && e # ${f} \\ 'g' $h", "a=\"b; c || d && e # ${f} \\ 'g' $h\""),
            ("a=b\"c\"", "a=b\"c\""),
            // U+00E0 has a byte that is white space for the kernel.
            ("a=à", "a=\"à\""),
            ("a=é", "a=é"),
        ] {
            let line = KernelLine::of_words(&[word]).unwrap();
            assert_eq!(line.to_string(), expected, "{word}");
            assert_eq!(KernelLine::of_text(expected).unwrap(), line);
        }
        assert_eq!(KernelLine::of_words(&["a", "", "b"]).unwrap().to_string(), "a b");
    }

    #[test]
    fn c_5_words_that_no_quotes_carry_are_named() {
        for (word, expected) in [
            ("a=b\nc", "the kernel parameter a=b\\nc has a control character"),
            ("a=\u{1b}[2J", "parameter a=\\u{1b}[2J has a control character"),
            ("a=b\tc", "a=b\\tc has a control character"),
            ("a=\"b", "the kernel parameter a=\"b has a double quote"),
            ("a=say \"hi\" now", "a=say \"hi\" now has a double quote"),
            ("a=\"b\" c", "a=\"b\" c has a double quote"),
            ("live.nixos.password=a\"b", "the kernel parameter live.nixos.password=(hidden) has a double quote"),
        ] {
            let error = KernelLine::of_words(&["quiet", word]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for text in ["a\nb", "a=\"b c", "a \"", "\n", "a=\"b\tc\"", "a=à", "a\u{a0}b"] {
            assert!(KernelLine::of_text(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn c_5_words_for_init_stay_behind_all_others() {
        let mut line = KernelLine::of_words(&["a", "--", "b", "--"]).unwrap();
        assert_eq!((line.for_kernel(), line.for_init()), (&["a".into()][..], &["b".into(), "--".into()][..]));
        line.append(KernelLine::of_text("c=1  d -- e").unwrap());
        assert_eq!(line.to_string(), "a c=1 d -- b -- e");
        line.put_first(|word| word == "d");
        assert_eq!(line.to_string(), "d a c=1 -- b -- e");
        assert_eq!(KernelLine::of_words(&["a", "\"--\""]).unwrap().to_string(), "a");
        assert_eq!(KernelLine::default().to_string(), "");
    }

    proptest! {
        #[test]
        fn c_5_the_kernel_reads_the_words_that_were_written(words in prop::collection::vec(
            "[a-z #;&|$\\\\{}'=.\u{e0}\u{a0}-]{0,12}", 0..8,
        )) {
            // The key and the value that the kernel has then, without quotes.
            let pair = |word: &String| {
                let place = word.char_indices().skip(1).find(|(_, c)| *c == '=').map(|(place, _)| place);
                place.map_or((word.clone(), None), |place| (word[..place].into(), Some(word[place + 1..].to_owned())))
            };
            let expected: Vec<_> = words.iter().filter(|word| !word.is_empty()).take_while(|word| *word != "--").map(pair).collect();
            let text = KernelLine::of_words(&words).unwrap().to_string();
            let read = CommandLine::parse(text.as_bytes());
            let read: Vec<_> = read.iter().map(|(key, value)| (key.to_owned(), value.map(str::to_owned))).collect();
            prop_assert_eq!(read, expected, "{}", text);
        }

        #[test]
        fn c_5_a_line_is_read_as_it_was_written(text in "[ab=\"\u{e0}\n -]{0,40}") {
            if let Ok(line) = KernelLine::of_text(&text) {
                prop_assert_eq!(KernelLine::of_text(&line.to_string()).unwrap(), line.clone());
                let again = KernelLine::of_words(line.for_kernel()).unwrap();
                prop_assert_eq!(again.for_kernel(), line.for_kernel());
            }
        }
    }
}
