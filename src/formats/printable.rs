//! Text for a terminal.

use std::path::Path;

/// A path on one line. Control characters, which would change the terminal, are escaped.
#[must_use]
pub fn printable(path: &Path) -> String {
    let escaped = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    path.to_string_lossy().chars().map(escaped).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_on_their_line() {
        assert_eq!(printable(Path::new("ä/b c\n\x1b[2J")), "ä/b c\\n\\u{1b}[2J");
    }
}
