//! Text of others for a terminal: characters that would change the terminal, or the order of what is read, are escaped.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

/// Whether a character has no form of its own: control characters (C0, DEL, C1), the embeddings, overrides and isolates that change the
/// direction of a text (Unicode Bidirectional Algorithm, UAX #9, 2), and the separators of lines and paragraphs.
#[must_use]
pub fn is_unprintable(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A path on one line. Unprintable characters are escaped as in Rust: `\n`, `\u{1b}`.
#[must_use]
pub fn printable(path: &Path) -> String {
    printable_line(&path.to_string_lossy())
}

/// A text on one line, in the same way.
#[must_use]
pub fn printable_line(text: &str) -> String {
    escaped(text, |_| false)
}

/// A text of one or more lines: unprintable characters other than newlines are escaped as in Rust.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    escaped(text, |letter| letter == '\n')
}

/// JSON with the same meaning that has unprintable characters only as `\u` and four hexadecimal digits, except the newlines between its
/// parts. JSON has to escape only C0 in strings (RFC 8259, 7), and other unprintable characters are nowhere else.
#[must_use]
pub fn printable_json(json: &str) -> String {
    replaced(json, |letter| letter == '\n', |letter| format!("\\u{:04x}", u32::from(letter)))
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    replaced(text, is_kept, |letter| letter.escape_default().to_string())
}

fn replaced(text: &str, is_kept: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_unprintable(letter) && !is_kept(letter) {
            out.push_str(&escape(letter));
        } else {
            out.push(letter);
        }
    }
    out
}

/// A writer that escapes unprintable characters, other than newlines and tabs, and bytes that are no UTF-8 (`\xff`).
#[derive(Debug)]
pub struct PrintableWriter<W> {
    out: W,
    /// The beginning of a character whose rest comes with the next bytes.
    begun: Vec<u8>,
}

impl<W: Write> PrintableWriter<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, begun: Vec::new() }
    }

    /// Writes a character that is cut short at the end of the text.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn finish(mut self) -> io::Result<()> {
        let begun = std::mem::take(&mut self.begun);
        self.out.write_all(bytes_escaped(&begun).as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Write for PrintableWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::new();
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text += &escaped(chunk.valid(), |letter| matches!(letter, '\n' | '\t'));
            // Of a character that may go on in the next bytes, `utf8_chunks` returns all bytes as invalid, at the end.
            if chunks.peek().is_none() && is_begun(chunk.invalid()) {
                self.begun = chunk.invalid().to_vec();
            } else {
                text += &bytes_escaped(chunk.invalid());
            }
        }
        self.out.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether bytes are the beginning of a character of UTF-8, and not all of it.
fn is_begun(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

fn bytes_escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string does not fail.
        if write!(text, "\\x{byte:02x}").is_err() {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind: C0, DEL, C1, the override and the isolate of a direction, a separator of lines.
    const BAD: &str = "\x1b\x7f\u{9b}\u{202e}\u{2066}\u{2028}";

    #[test]
    fn paths_stay_on_their_line() {
        assert_eq!(printable(Path::new("ä/b c\n\x1b[2J")), "ä/b c\\n\\u{1b}[2J");
    }

    #[test]
    fn c_3_unprintable_characters_are_escaped() {
        let expected = "\\u{1b}\\u{7f}\\u{9b}\\u{202e}\\u{2066}\\u{2028}";
        assert_eq!(printable(Path::new(BAD)), expected);
        assert_eq!(printable_lines(&format!("ä\n\tb{BAD}\n")), format!("ä\n\\tb{expected}\n"));
        let json = serde_json::to_string_pretty(&[BAD, "ä\n"]).unwrap();
        let safe = printable_json(&json);
        assert!(!safe.chars().any(|letter| is_unprintable(letter) && letter != '\n'), "{safe:?}");
        assert_eq!(serde_json::from_str::<[String; 2]>(&safe).unwrap(), [BAD, "ä\n"]);
    }

    #[test]
    fn c_3_contents_are_escaped_in_pieces_of_any_size() {
        let contents =
            [b"a\xc3\xa4\tb\n\x1b[31m".as_slice(), "\u{9b}\u{202e}".as_bytes(), b"\xff\x9b\xe2\x82"].concat();
        for size in 1..contents.len() {
            let mut out = Vec::new();
            let mut writer = PrintableWriter::new(&mut out);
            for piece in contents.chunks(size) {
                writer.write_all(piece).unwrap();
            }
            writer.finish().unwrap();
            let expected = "aä\tb\n\\u{1b}[31m\\u{9b}\\u{202e}\\xff\\x9b\\xe2\\x82";
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{size}");
        }
    }
}
