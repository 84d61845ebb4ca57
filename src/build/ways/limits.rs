//! The limits of the kernel for its command line. It cuts off the rest of a longer line, and panics at too many words, before a console
//! shows anything.

use crate::contract::parameters::LONGEST_LINE;
use crate::formats::cmdline::key_and_value;
use crate::formats::kernel_line::{KernelLine, shown};
use crate::formats::kernel_parameters::KernelParameters;
use crate::host::file;
use anyhow::{Context, Result, ensure};
use std::borrow::Cow;
use std::path::Path;

/// The most words without a value that the kernel passes to init, and the most variables, with `HOME` and `TERM`, which it sets itself
/// (`MAX_INIT_ARGS` and `MAX_INIT_ENVS`, init/main.c: `CONFIG_INIT_ENV_ARG_LIMIT`, which no configuration has a prompt for). Measured
/// with Linux 6.1.192 and 7.3.4: 32 words boot, 33 panic; 31 more variables boot, 32 panic.
const MOST: usize = 32;

/// Words that boot loaders add to the command line, each with the longest that is usual.
const ADDED: &[(&str, &str)] = &[
    // grub-core/loader/i386/linux.c and grub-core/loader/efi/linux.c: the path of the kernel. That of NixOS has a hash (install-grub.pl).
    ("GRUB", "BOOT_IMAGE=(hd0,gpt1)//kernels/00000000000000000000000000000000-linux-6.12.95-bzImage "),
    // com32/elflink/ldlinux/kernel.c: the kernel, and the ramdisk of the configuration.
    (
        "SYSLINUX",
        "BOOT_IMAGE=nixos/00000000000000000000000000000000/bzImage initrd=nixos/00000000000000000000000000000000/initrd ",
    ),
    // src/image/efi_image.c and src/interface/efi/efi_shim.c: the names of the programs. The script of firn adds the ramdisk.
    ("iPXE", "shimx64.efi bzImage initrd=zero-copy.cpio initrd=initrd "),
    // src/boot/boot.c: the line `initrd` of the entry.
    ("systemd-boot", "initrd=\\EFI\\nixos\\00000000000000000000000000000000-initrd-linux-6.12.95-initrd.efi "),
];

/// The room for these words, bytes. `nix/module/kernel.nix` has the same number.
pub const ROOM: usize = 128;

/// The room that kexec needs: `kexec_file_load` refuses a line that has none for `elfcorehdr=0x` with an address, even if no crash
/// kernel is loaded (arch/x86/kernel/kexec-bzimage64.c of Linux 6.1 to 7.3); and it counts the final NUL, as kexec-tools does.
pub const KEXEC_ROOM: usize = 31;

const _: () = {
    let mut index = 0;
    while index < ADDED.len() {
        assert!(ADDED[index].1.len() <= ROOM, "there is no room for the words of a boot loader");
        index += 1;
    }
};

/// A variable of [`ADDED`] that the kernel may not know.
const BOOT_IMAGE: &str = "BOOT_IMAGE=";

/// Who adds words to a command line before the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// A boot loader: it needs [`ROOM`].
    Any,
    /// kexec: it needs [`KEXEC_ROOM`].
    Kexec,
    /// Nobody: the EFI stub of systemd.
    None,
}

/// Checks that the kernel image takes a command line.
///
/// # Errors
///
/// A line that the kernel would cut off; more words than it passes to init, with which it panics; a kernel that cannot be read.
pub fn ensure_bootable(line: &KernelLine, kernel: &Path, loader: Loader) -> Result<()> {
    ensure_short(line, loader)?;
    Places::after(line, loader, &parameters(line, loader, kernel)?).map(drop).map_err(|word| too_many(line, &word))
}

/// The command line of a build, with the words of a text such as the value of an option `--append`.
///
/// # Errors
///
/// Words that cannot be written into a command line.
pub fn extended(cmdline: &str, append: &str) -> Result<KernelLine> {
    let mut line = KernelLine::of_text(cmdline).context("the command line in manifest.json; build the system again")?;
    line.append(KernelLine::of_text(append).context("the parameters to append do not fit into a command line")?);
    Ok(line)
}

/// The numbers of words and of variables that can be added to a command line behind it.
///
/// # Errors
///
/// Those of [`ensure_bootable`].
pub fn left(line: &KernelLine, kernel: &Path, loader: Loader) -> Result<(usize, usize)> {
    let known = parameters(line, loader, kernel)?;
    let places = Places::after(line, loader, &known).map_err(|word| too_many(line, &word))?;
    Ok((MOST - 1 - places.words + usize::from(!places.last), MOST + 1 - places.variables.len()))
}

/// Checks the length of a command line.
fn ensure_short(line: &KernelLine, loader: Loader) -> Result<()> {
    let (room, for_loaders) = match loader {
        Loader::Any => (ROOM, format!(", of which boot loaders need up to {ROOM} for words of their own")),
        Loader::Kexec => (KEXEC_ROOM, format!(", of which kexec needs {KEXEC_ROOM}")),
        Loader::None => (0, String::new()),
    };
    let bytes = line.to_string().len();
    let longest = line.words().max_by_key(|word| word.len()).unwrap_or_default();
    ensure!(
        bytes + room <= LONGEST_LINE,
        "the kernel command line has {bytes} bytes, and the kernel reads only {LONGEST_LINE}{for_loaders}: remove kernel parameters \
         (boot.kernelParams); the longest one has {} bytes: {}",
        longest.len(),
        shown(longest)
    );
    Ok(())
}

/// The parameters of the kernel. They are not needed for a line that fits even if the kernel knows none of its words.
fn parameters(line: &KernelLine, loader: Loader, kernel: &Path) -> Result<KernelParameters> {
    if Places::after(line, loader, &KernelParameters::default()).is_ok() {
        return Ok(KernelParameters::common());
    }
    let image = file::read(kernel).with_context(|| format!("reading the kernel {}", kernel.display()))?;
    Ok(KernelParameters::of_image(&image).unwrap_or_else(KernelParameters::common))
}

fn too_many(line: &KernelLine, word: &str) -> anyhow::Error {
    let without = if line.for_init().is_empty() { "" } else { " and of those after --" };
    anyhow::anyhow!(
        "the kernel command line has too many words that the kernel does not know: it passes at most {MOST} to init, and {} variables \
         (name=value), and panics at {} before it shows anything; remove some of them{without} (boot.kernelParams); those with a dot in \
         their names do not count",
        MOST - 1,
        shown(word)
    )
}

/// The places that the kernel has for the words it passes to init.
struct Places {
    /// The number of those for words that are in use, without the last one.
    words: usize,
    /// Whether the last one is in use, too. `init=` empties all others.
    last: bool,
    variables: Vec<String>,
}

impl Places {
    /// The places that a command line uses, or the word for which there is none.
    fn after(line: &KernelLine, loader: Loader, known: &KernelParameters) -> Result<Self, String> {
        let mut places = Self { words: 0, last: false, variables: vec!["HOME".into(), "TERM".into()] };
        if loader == Loader::Any && !known.has(BOOT_IMAGE) {
            places.variable(BOOT_IMAGE)?;
        }
        for word in line.for_kernel().iter().map(|word| unquoted(word)) {
            let (name, value) = word.split_at(word.find('=').unwrap_or(word.len()));
            if matches!(name, "init" | "rdinit") && !value.is_empty() {
                places.words = 0;
            } else if known.has(&word) || name.contains('.') {
            } else if value.is_empty() {
                places.word(&word)?;
            } else {
                places.variable(&word)?;
            }
        }
        line.for_init().iter().try_for_each(|word| places.word(word))?;
        Ok(places)
    }

    /// As `unknown_bootoption` and `set_init_arg` look for a place.
    fn word(&mut self, word: &str) -> Result<(), String> {
        if self.words < MOST - 1 {
            self.words += 1;
        } else if self.last {
            return Err(word.into());
        } else {
            self.last = true;
        }
        Ok(())
    }

    /// A variable takes the place of one of the same name. At the last place the kernel panics before it compares them.
    fn variable(&mut self, word: &str) -> Result<(), String> {
        let name = word.split('=').next().unwrap_or_default();
        if self.variables.iter().take(MOST).any(|other| other == name) {
            return Ok(());
        }
        if self.variables.len() > MOST {
            return Err(word.into());
        }
        self.variables.push(name.into());
        Ok(())
    }
}

/// A word without its quotes, as the kernel compares and passes it.
fn unquoted(word: &str) -> Cow<'_, str> {
    if !word.contains('"') {
        return word.into();
    }
    let (key, value) = key_and_value(word.as_bytes());
    value.map_or(key.clone(), |value| format!("{key}={value}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::release::LEAST;

    fn line(words: &[String]) -> KernelLine {
        KernelLine::of_words(words).unwrap()
    }

    fn numbered(count: usize, end: &str) -> Vec<String> {
        (1..=count).map(|number| format!("w{number}{end}")).collect()
    }

    /// A kernel of which firn knows only the common parameters.
    fn kernel() -> tempfile::NamedTempFile {
        tempfile::NamedTempFile::new().unwrap()
    }

    fn check(words: &[String], loader: Loader) -> Result<(), String> {
        ensure_bootable(&line(words), kernel().path(), loader).map_err(|error| error.to_string())
    }

    #[test]
    fn c_4_lines_that_the_kernel_would_cut() {
        let with = |bytes: usize| vec![format!("a={}", "x".repeat(bytes - 2))];
        for (bytes, loader, fits) in [
            (2047, Loader::None, true),
            (2048, Loader::None, false),
            (2016, Loader::Kexec, true),
            (2017, Loader::Kexec, false),
            (2047 - ROOM, Loader::Any, true),
            (2048 - ROOM, Loader::Any, false),
            (2100, Loader::Any, false),
        ] {
            assert_eq!(check(&with(bytes), loader).is_ok(), fits, "{bytes}");
        }
        let error = check(&with(2100), Loader::Any).unwrap_err();
        assert!(
            error.contains("has 2100 bytes, and the kernel reads only 2047, of which boot loaders need up to 128"),
            "{error}"
        );
        assert!(error.contains("the longest one has 2100 bytes: a=xxx") && error.len() < 400, "{error}");
        let many: Vec<_> = (0..400).map(|number| format!("a.b{number}=1")).collect();
        assert!(check(&many, Loader::None).unwrap_err().contains("remove kernel parameters"));
    }

    #[test]
    fn c_4_the_module_leaves_the_same_room() {
        let module = include_str!("../../../nix/module/kernel.nix");
        let (bytes, least) = (format!("room = {ROOM};"), format!("\"{}.{}\"", LEAST.0, LEAST.1));
        for text in [&bytes, &format!("longest = {LONGEST_LINE};"), &least] {
            assert!(module.contains(text), "no {text}");
        }
    }

    #[test]
    fn c_4_words_for_which_the_kernel_has_no_place() {
        let with = |more: &[&str], words: Vec<String>| {
            words.into_iter().chain(more.iter().map(ToString::to_string)).collect::<Vec<_>>()
        };
        let known = ["quiet", "console=ttyS0", "panic=-1", "systemd.unit=x", "boot.shell_on_fail", "firn.log=debug"];
        for (words, fits) in [
            (with(&known, numbered(32, "")), true),
            (numbered(33, ""), false),
            (numbered(36, ""), false),
            (with(&known, numbered(31, "=1")), true),
            (numbered(32, "=1"), false),
            // Both kinds have places of their own.
            ([numbered(32, ""), numbered(31, "=1")].concat(), true),
            // A variable replaces another one, but not at the last place.
            (with(&["w1=2", "w30=2", "HOME=/x", "TERM=x"], numbered(31, "=1")), true),
            (with(&["w31=2"], numbered(31, "=1")), false),
            // init= drops the words before it, but not the one in the last place.
            (with(&["init=/x"], numbered(31, "")), true),
            ([with(&["init=/x"], numbered(31, "")), numbered(32, "x")].concat(), true),
            ([with(&["init=/x"], numbered(32, "")), numbered(31, "x")].concat(), true),
            ([with(&["init=/x"], numbered(32, "")), numbered(32, "x")].concat(), false),
            // After -- each word needs a place.
            (with(&["--", "x"], numbered(31, "")), true),
            (with(&["--", "x"], numbered(32, "")), false),
            (with(&["--", "a.b=1"], numbered(32, "")), false),
            (vec!["--".to_owned()].into_iter().chain(numbered(33, "=1")).collect(), false),
        ] {
            assert_eq!(check(&words, Loader::None).is_ok(), fits, "{words:?}");
        }
        let error = check(&numbered(36, ""), Loader::None).unwrap_err();
        assert!(
            error.contains("passes at most 32 to init") && error.contains("panics at w33 before it shows anything"),
            "{error}"
        );
    }

    #[test]
    fn c_4_a_boot_loader_needs_a_place() {
        assert!(check(&numbered(30, "=1"), Loader::Any).is_ok());
        assert!(check(&numbered(31, "=1"), Loader::Any).is_err());
        let left = |words: &[String]| left(&line(words), kernel().path(), Loader::None).unwrap();
        assert_eq!(left(&[]), (32, 31));
        assert_eq!(left(&[numbered(2, ""), numbered(3, "=1")].concat()), (30, 28));
        assert_eq!(left(&numbered(32, "")), (0, 31));
    }
}
