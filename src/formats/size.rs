//! Sizes as people write them: `48G`, `512m`, `131072`, `50%`.

/// A decimal number, or one with `k`, `m` or `g` behind it for so many KiB, MiB or GiB (as `memparse`, lib/cmdline.c, but without
/// its hexadecimal numbers and larger units). None for other text, and for a number of more than 64 bits.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let number = text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(text);
    let unit = match text.strip_prefix(number)? {
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => 1,
    };
    decimal(number)?.checked_mul(unit)
}

/// A share such as `50%`, 1 to 100. None for other text.
#[must_use]
pub fn percent(text: &str) -> Option<u64> {
    decimal(text.strip_suffix('%')?).filter(|percent| (1..=100).contains(percent))
}

/// A number in decimal digits. `str::parse` alone accepts a sign.
#[must_use]
pub fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("131072", Some(131_072)),
            ("4k", Some(4 << 10)),
            ("512m", Some(512 << 20)),
            ("48G", Some(48 << 30)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("17179869184g", None),
            ("", None),
            ("m", None),
            ("1 M", None),
            ("1t", None),
            ("1mm", None),
            ("+1", None),
            ("-1", None),
            ("0x10", None),
            ("50%", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn percentages() {
        for (text, expected) in [
            ("1%", Some(1)),
            ("100%", Some(100)),
            ("0%", None),
            ("101%", None),
            ("+5%", None),
            ("%", None),
            ("5", None),
        ] {
            assert_eq!(percent(text), expected, "{text}");
        }
    }
}
