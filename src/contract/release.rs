//! Kernel releases, as `uname -r` prints them.

/// The oldest kernel that firn supports (major, minor): stage 1 needs `openat2` (5.6), and `fsopen` and `move_mount` (5.2).
pub const LEAST: (u32, u32) = (5, 6);

/// Whether a release is at least this version (major, minor). `None` if the release does not begin with a version.
#[must_use]
pub fn at_least(release: &str, version: (u32, u32)) -> Option<bool> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor) >= version),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::at_least;

    #[test]
    fn releases() {
        for (release, expected) in [
            ("6.8.0", Some(true)),
            ("6.12.95+deb13-cloud-amd64", Some(true)),
            ("10.1-rc1", Some(true)),
            ("6.8", Some(true)),
            ("6.7.12", Some(false)),
            ("5.19", Some(false)),
            ("", None),
            ("next", None),
            ("7", None),
        ] {
            assert_eq!(at_least(release, (6, 8)), expected, "{release}");
        }
    }
}
