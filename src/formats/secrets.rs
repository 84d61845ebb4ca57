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
        line += &shown(name, value);
        line.push(' ');
    }
    line.truncate(line.trim_end().len());
    line
}

/// A parameter as it stands in a command line, without its value if that is a secret.
#[must_use]
pub fn shown(name: &str, value: Option<&str>) -> String {
    let is_hidden = is_secret(name) || value.is_some_and(has_secret);
    cmdline::parameter(name, value.map(|value| if is_hidden { HIDDEN } else { value }))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part)) || ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether a value has a secret in it: a variable (`systemd.setenv=AUTHKEY=x`), a user with a password (`user:password@host`), or the query
/// of a URL, which may be a signature.
fn has_secret(value: &str) -> bool {
    value.split_once('=').is_some_and(|(name, _)| is_secret(name))
        || value.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
        || value.contains("://") && value.contains('?')
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
            (
                "systemd.setenv=TS_AUTHKEY=x systemd.setenv=A=b netroot=iscsi:me:secret@10.0.0.1::::iqn x=subvol=@ y=user@host",
                "systemd.setenv=(hidden) systemd.setenv=A=b netroot=(hidden) x=subvol=@ y=user@host",
            ),
            ("firn.modules=a,b x=\"1 2\" -- password=x", "firn.modules=a,b \"x=1 2\""),
        ] {
            assert_eq!(hidden(&CommandLine::parse(line.as_bytes())), expected, "{line}");
        }
    }
}
