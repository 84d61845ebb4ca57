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

/// The tag in the name of a device, such as `LABEL=state` or `/dev/vda1`.
pub fn tag(device: &str) -> Tag {
    let tagged = TAGS.iter().find_map(|(name, directory)| {
        let by_name = device.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        Some((*name, by_name.map(Into::into).or_else(|| device.strip_prefix(directory).map(unescape))?))
    });
    tagged.unwrap_or_else(|| (PATH, device.into()))
}

/// Decodes `\x20` and so on: udev encodes characters in file names in this way.
fn unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.split_at_checked(2).map(|(digits, rest)| (u8::from_str_radix(digits, 16), rest)) {
            Some((Ok(byte), rest)) => bytes.extend([&[byte], rest.as_bytes()].concat()),
            _ => bytes.extend([b"\\x", part.as_bytes()].concat()),
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
}
