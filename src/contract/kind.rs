//! The kinds of systems. Each kind needs different steps of stage 1 between the mounts and the init.
//!
//! The builder looks at the toplevel, refuses a system that cannot start, and writes the kind into the plan. So stage 1 does not have to
//! read the store image for the default system. Stage 1 looks at the toplevel of any other system that `init=` names.

use serde::{Deserialize, Serialize};

/// The stage 1 that a system is built for (nixpkgs, `nixos/modules/system/activation/top-level.nix`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The init is the stage-2 script, which activates the system and starts systemd.
    Classic,
    /// The init is systemd. Stage 1 runs `prepare-root` first, which activates the system and returns.
    PrepareRoot,
    /// The init is systemd and no script runs before it. Stage 1 does the work of nixpkgs' nixos-init.
    NixosInit,
    /// The init is not part of a NixOS system. Stage 1 executes it without further steps.
    None,
}

impl Kind {
    /// The kind of a toplevel, one of the first three: from the presence of `prepare-root` and the first bytes of its init.
    #[must_use]
    pub fn of_toplevel(has_prepare_root: bool, init: &[u8]) -> Self {
        match (has_prepare_root, init.starts_with(b"#!")) {
            (true, _) => Self::PrepareRoot,
            (false, true) => Self::Classic,
            (false, false) => Self::NixosInit,
        }
    }

    /// The interpreter in the first line of a script, as the kernel finds it (`fs/binfmt_script.c`). `None` for a program.
    #[must_use]
    pub fn interpreter(init: &[u8]) -> Option<String> {
        let line = init.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
        let word = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).find(|word| !word.is_empty())?;
        Some(String::from_utf8_lossy(word).into_owned())
    }

    /// The kind and the reason for it, as the end of a sentence such as "Starting /init …".
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Classic => "as a classic system: its init is a script",
            Self::PrepareRoot => "as a system built for a systemd stage 1: it has prepare-root",
            Self::NixosInit => "as a system built for nixos-init: its init is a program and it has no prepare-root",
            Self::None => "without further steps: it is not part of a NixOS system",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn kinds() {
        for (has_prepare_root, init, kind) in [
            (false, &b"#!/nix/store/x-bash/bin/bash\n"[..], Kind::Classic),
            (true, b"\x7fELF", Kind::PrepareRoot),
            (true, b"#!/bin/sh\n", Kind::PrepareRoot),
            (false, b"\x7fELF", Kind::NixosInit),
            (false, b"", Kind::NixosInit),
        ] {
            assert_eq!(Kind::of_toplevel(has_prepare_root, init), kind);
        }
    }
    #[test]
    fn interpreters() {
        for (start, expected) in [
            (&b"#!/bin/sh\n"[..], Some("/bin/sh")),
            (b"#! /bin/sh -e\necho", Some("/bin/sh")),
            (b"#!\t/usr/bin/env\tbash", Some("/usr/bin/env")),
            (b"#!/bin/sh", Some("/bin/sh")),
            (b"#!/bin/sh\0x\n", Some("/bin/sh")),
            (b"#!\n/bin/sh", None),
            (b"#!", None),
            (b"\x7fELF", None),
            (b"", None),
        ] {
            assert_eq!(Kind::interpreter(start).as_deref(), expected, "{}", String::from_utf8_lossy(start));
        }
    }
}
