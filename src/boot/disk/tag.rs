//! The names of devices in the form of mount(8) and udev: `/dev/vda1`, `LABEL=state`, `/dev/disk/by-uuid/…`.

/// The tags of devices: the name that mount(8) expects before `=`, and the directory of udev's links by this tag.
const TAGS: [(&str, &str); 4] = [
    ("LABEL", "/dev/disk/by-label/"),
    ("UUID", "/dev/disk/by-uuid/"),
    ("PARTLABEL", "/dev/disk/by-partlabel/"),
    ("PARTUUID", "/dev/disk/by-partuuid/"),
];

/// The tag that every device has: its path.
pub const PATH: &str = "";

/// The name and the value of a tag.
pub type Tag = (&'static str, String);

/// The tag in the name of a device, such as `LABEL=state`, `LABEL="my state"` or `/dev/vda1`.
pub fn tag(device: &str) -> Tag {
    let device = unquoted(device);
    let tagged = TAGS.iter().find_map(|(name, directory)| {
        let by_name = device.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).map(unquoted);
        Some((*name, unescape(by_name.or_else(|| device.strip_prefix(directory))?)))
    });
    tagged.unwrap_or_else(|| (PATH, device.into()))
}

/// A name without the quotes around it. The kernel removes only those around a whole value, not those in `LABEL="my state"`. mount(8)
/// takes single and double quotes.
fn unquoted(name: &str) -> &str {
    let inside = |quote| name.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(name)
}

/// Decodes `\x20`, as udev and dracut write a space, and `\040`, as fstab does (`man 5 fstab`), and other characters in the same way.
fn unescape(name: &str) -> String {
    let mut parts = name.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, base) = part.strip_prefix('x').map_or((part, 8), |digits| (digits, 16));
        let length = if base == 8 { 3 } else { 2 };
        // from_str_radix alone accepts a sign.
        let number = digits.split_at_checked(length).filter(|_| !digits.starts_with('+'));
        match number.map(|(digits, rest)| (u8::from_str_radix(digits, base), rest)) {
            Some((Ok(byte), rest)) => bytes.extend([&[byte], rest.as_bytes()].concat()),
            _ => bytes.extend([b"\\", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a tag of a device is the one that is asked for.
pub fn is_same((name, value): &Tag, (asked_name, asked_value): &Tag) -> bool {
    // UUIDs are hexadecimal numbers: upper and lower case are the same.
    name == asked_name
        && if name.ends_with("UUID") { value.eq_ignore_ascii_case(asked_value) } else { value == asked_value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::cmdline::CommandLine;

    #[test]
    fn names_of_devices() {
        for (name, expected) in [
            ("/dev/vda1", (PATH, "/dev/vda1")),
            ("LABEL=state", ("LABEL", "state")),
            ("LABEL=a=b", ("LABEL", "a=b")),
            ("UUID=12-34", ("UUID", "12-34")),
            ("PARTLABEL=a b", ("PARTLABEL", "a b")),
            ("PARTUUID=12-34", ("PARTUUID", "12-34")),
            ("/dev/disk/by-label/a\\x20b\\xc3\\xa4", ("LABEL", "a bä")),
            ("/dev/disk/by-label/a\\xzz\\x2", ("LABEL", "a\\xzz\\x2")),
            ("/dev/disk/by-uuid/12-34", ("UUID", "12-34")),
            ("/dev/disk/by-partuuid/12-34", ("PARTUUID", "12-34")),
            ("/dev/disk/by-id/x", (PATH, "/dev/disk/by-id/x")),
            ("LABELS=x", (PATH, "LABELS=x")),
        ] {
            assert_eq!(tag(name), (expected.0, expected.1.into()), "{name}");
        }
    }

    #[test]
    fn b_10_names_in_quotes_and_with_escapes() {
        for (line, expected) in [
            (r#"x=LABEL="my state""#, ("LABEL", "my state")),
            (r#"x="LABEL=my state""#, ("LABEL", "my state")),
            (r#""x=LABEL=my state""#, ("LABEL", "my state")),
            ("x=LABEL='state'", ("LABEL", "state")),
            (r#"x=UUID="12-34""#, ("UUID", "12-34")),
            (r#"x=PARTLABEL="a b""#, ("PARTLABEL", "a b")),
            (r#"x=PARTUUID="12-34""#, ("PARTUUID", "12-34")),
            (r"x=LABEL=my\x20state", ("LABEL", "my state")),
            (r"x=LABEL=my\040state\303\244", ("LABEL", "my stateä")),
            (r#"x=LABEL="my\x20state""#, ("LABEL", "my state")),
            (r#"x="/dev/disk/by-label/my\x20state""#, ("LABEL", "my state")),
            (r"x='/dev/vda1'", (PATH, "/dev/vda1")),
            (r#"x=LABEL="state"#, ("LABEL", "\"state")),
            (r"x=LABEL=a\b\4\999\x+1", ("LABEL", r"a\b\4\999\x+1")),
            ("x=LABEL=", ("LABEL", "")),
        ] {
            let cmdline = CommandLine::parse(line.as_bytes());
            assert_eq!(tag(cmdline.value("x").unwrap()), (expected.0, expected.1.into()), "{line}");
        }
    }
}
