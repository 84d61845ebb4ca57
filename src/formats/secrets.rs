//! Secrets on a command line. They do not belong into the log, since more people may read the log than the secrets are for.

use crate::formats::cmdline::{self, CommandLine};

/// In place of a secret.
const HIDDEN: &str = "(hidden)";

/// Parts of the names of parameters whose values are secrets: `live.nixos.password=` and `live.nixos.passwordHash=` of NixOS,
/// `systemd.set_credential=` and others.
const PARTS: [&str; 6] = ["passw", "passphrase", "secret", "token", "credential", "psk"];

/// Ends of such names. A `keymap` is no secret.
const ENDS: [&str; 3] = ["key", "pass", "pwd"];

/// The parameters as they stand in a command line, without the values of secrets, and without words for init.
#[must_use]
pub fn hidden(cmdline: &CommandLine) -> String {
    let mut line = String::new();
    for (name, value) in cmdline.iter() {
        let value = value.map(|value| if is_secret(name) || is_url_with_secret(value) { HIDDEN } else { value });
        line += &cmdline::parameter(name, value);
        line.push(' ');
    }
    line.truncate(line.trim_end().len());
    line
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part)) || ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether a value is a URL with a user and a password, or with a query, which may be a signature.
fn is_url_with_secret(value: &str) -> bool {
    value.contains("://") && value.contains(['@', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_8_secrets_are_hidden_and_all_other_words_are_shown() {
        for (line, expected) in [
            ("quiet init=/x/init root=UUID=1-2\n", "quiet init=/x/init root=UUID=1-2"),
            ("live.nixos.password=p@ss a=1", "live.nixos.password=(hidden) a=1"),
            (
                "live.nixos.passwordHash=$6$x$y live.nixos.password=",
                "live.nixos.passwordHash=(hidden) live.nixos.password=(hidden)",
            ),
            (
                r#"live.nixos.password="two words" "x.password=two words""#,
                "live.nixos.password=(hidden) x.password=(hidden)",
            ),
            ("systemd.set_credential=passwd.hashed-password.root:x", "systemd.set_credential=(hidden)"),
            (
                "wifi.PSK=x api_key=y tailscale.authkey=z rd.luks.pass=a",
                "wifi.PSK=(hidden) api_key=(hidden) tailscale.authkey=(hidden) rd.luks.pass=(hidden)",
            ),
            ("vconsole.keymap=us rd.vconsole.keymap=de password", "vconsole.keymap=us rd.vconsole.keymap=de password"),
            (
                "a=https://me:secret@host:81/x b=http://h/?sig=1 c=http://host/x",
                "a=(hidden) b=(hidden) c=http://host/x",
            ),
            ("firn.modules=a,b x=\"1 2\" -- password=x", "firn.modules=a,b \"x=1 2\""),
        ] {
            assert_eq!(hidden(&CommandLine::parse(line.as_bytes())), expected, "{line}");
        }
    }
}
