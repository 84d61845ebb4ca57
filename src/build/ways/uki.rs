//! A unified kernel image: one program for UEFI with kernel, ramdisk and command line
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>).
//!
//! The program is the EFI stub of systemd; the kernel and the rest are further sections of it. Stubs of systemd 256 and older start the
//! kernel where it is in memory, and there it writes behind the end of its file, up to its `SizeOfImage`. So its section has this size, as
//! in ukify of systemd 257.0, and is the last one. The file has it, too: systemd-stub(7) wants no section that is larger in memory.

use crate::build::output::checked::Checked;
use crate::build::output::directory::Output;
use crate::build::ways::build_directory::{BuildDirectory, BuildFile};
use crate::build::ways::limits::Loader;
use crate::contract::manifest::{FileEntry, Manifest};
use crate::formats::digest::copy;
use crate::formats::magic::{self, FileKind};
use crate::formats::pe::added::{NewSection, Place, SectionError, ensure_fit, with_sections};
use crate::formats::pe::{self, Machine, Program};
use crate::formats::uki::{CMDLINE, KERNEL, OS_RELEASE, PROFILE, RAMDISK, RELEASE, systemd_program};
use crate::host::file;
use crate::host::progress::Progress;
use anyhow::{Context, Result, anyhow, ensure};
use std::env;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

/// The environment variable with the path of the stub.
const STUB: &str = "FIRN_STUB";

/// The first systemd whose stub combines its ramdisk with one of the boot loader. Older stubs fail with "Error registering initrd:
/// Already started".
const COMBINES_RAMDISKS: u32 = 261;

/// The sections that a stub must not have. Those behind a section for a profile would be parts of the profile.
const ADDED: [&str; 6] = [OS_RELEASE, CMDLINE, RELEASE, RAMDISK, KERNEL, PROFILE];

/// The most bytes that a stub can have. Real ones have a few hundred kilobytes.
const LARGEST_STUB: u64 = 64 << 20;

/// The most memory that a kernel can ask for, bytes: as much as x86-64 has for it (`KERNEL_IMAGE_SIZE`,
/// `arch/x86/include/asm/page_64_types.h` of Linux 6.12). All of it would be zeros in the file.
const LARGEST_KERNEL: u32 = 1 << 30;

/// The options of a unified kernel image.
#[derive(Debug, Default)]
pub struct UkiOptions {
    /// The EFI stub of systemd; without it the one that `FIRN_STUB` names, or the installed one.
    pub stub: Option<PathBuf>,
    /// Kernel parameters after those of the system. With Secure Boot nobody can add any later.
    pub append: String,
    /// Whether the store image is left out, for a boot loader that adds it as a second ramdisk.
    pub without_image: bool,
}

/// Makes a unified kernel image: the file `out`, or `nixos.efi` in the directory `out`.
///
/// # Errors
///
/// No stub, or one without room for more sections; a damaged build; an image that is too large for UEFI; and those of writing.
pub fn image(build: &BuildDirectory, out: &Path, options: &UkiOptions, progress: Progress) -> Result<Vec<FileEntry>> {
    let cmdline = build.cmdline(&options.append, Loader::None)?.to_string();
    let (mut output, name) = build.file_output(out, "nixos.efi")?;
    let ramdisk = build.one_ramdisk(!options.without_image)?;
    let kernel = Kernel::open(&build.kernel()?)?;
    let stub = Stub::open(options, kernel.machine)?;
    let (cmdline, os_release) = (cmdline.as_bytes(), os_release(&build.manifest));
    let release = build.manifest.kernel_release.as_bytes();
    let text = |name, text| -> (_, Box<dyn Read>) { (data(name, <[u8]>::len(text) as u64), Box::new(text)) };
    let contents = kernel.contents.chain(kernel.rest);
    let code = NewSection { name: KERNEL, bytes: kernel.memory, is_code: true };
    let sections: [(NewSection, Box<dyn Read>); 5] = [
        text(OS_RELEASE, os_release.as_bytes()),
        text(CMDLINE, cmdline),
        text(RELEASE, release),
        (data(RAMDISK, ramdisk.bytes()), ramdisk.open()?),
        (code, Box::new(contents)),
    ];
    // A section without bytes has no address of its own.
    let sections: Vec<_> = sections.into_iter().filter(|(section, _)| section.bytes > 0).collect();
    let step = progress.step("Packing the UEFI image", kernel.bytes + ramdisk.bytes());
    let (head, places) = stub.with_sections(&sections.iter().map(|(section, _)| *section).collect::<Vec<_>>())?;
    output.write_with(&name, ramdisk.ramdisk.private, |out| {
        out.write_all(&head)?;
        for (place, (_, contents)) in places.iter().zip(sections) {
            pad(out, place.offset)?;
            copy(step.reading(contents), out)?;
        }
        pad(out, places.last().map_or(0, |place| place.end))
    })?;
    step.done();
    output.publish()
}

/// A section of data.
const fn data(name: &str, bytes: u64) -> NewSection<'_> {
    NewSection { name, bytes, is_code: false }
}

/// The kernel, as a program for UEFI.
struct Kernel {
    machine: Machine,
    /// Its size, bytes.
    bytes: u64,
    /// Its size in memory, or that of its file if that is larger, bytes.
    memory: u64,
    /// Its first bytes, and a reader of the others.
    contents: Cursor<Vec<u8>>,
    rest: Checked,
}

impl Kernel {
    fn open(kernel: &BuildFile) -> Result<Self> {
        let (mut start, mut rest) = (Vec::new(), kernel.open()?);
        rest.by_ref().take(pe::START).read_to_end(&mut start)?;
        let program = match magic::recognize(&start) {
            Some(FileKind::Kernel | FileKind::EfiProgram) | None => Program::of_whole(&start, kernel.bytes),
            Some(other) => Err(anyhow!("it is {other}")),
        }
        .with_context(|| {
            format!(
                "UEFI cannot start the kernel {}; build the system with a kernel that has CONFIG_EFI_STUB and is not compressed in whole",
                kernel.path().display()
            )
        })?;
        ensure!(
            program.memory <= LARGEST_KERNEL,
            "the kernel {} is damaged: its headers ask for {} bytes of memory (SizeOfImage); copy it again, or build the system again",
            kernel.path().display(),
            program.memory
        );
        Ok(Self {
            machine: program.machine,
            bytes: kernel.bytes,
            memory: kernel.bytes.max(program.memory.into()),
            contents: Cursor::new(start),
            rest,
        })
    }
}

/// The EFI stub of systemd.
struct Stub {
    path: PathBuf,
    contents: Vec<u8>,
    program: Program,
    /// The name of the right stub, for errors.
    right: String,
    /// Whether there is a way to a smaller image.
    can_shrink: bool,
}

impl Stub {
    /// Reads the stub and makes sure that it starts a kernel for this machine.
    fn open(options: &UkiOptions, machine: Machine) -> Result<Self> {
        let right = format!("linux{}.efi.stub", machine.in_names_of_files());
        let installed = || format!("/usr/lib/systemd/boot/efi/{right}").into();
        let path = options.stub.clone().or_else(|| env::var_os(STUB).map(PathBuf::from)).unwrap_or_else(installed);
        let wanted =
            format!("the path of {right} of systemd with --stub or {STUB}, or install systemd-boot-efi (Debian)");
        let (mut contents, mut file) = (Vec::new(), file::open(&path, &wanted)?);
        let length = file.metadata()?.len();
        let reading = |path: &Path| format!("reading the EFI stub {}", path.display());
        Read::take(&mut file, pe::START).read_to_end(&mut contents).with_context(|| reading(&path))?;
        let program = Program::of_whole(&contents, length)
            .with_context(|| format!("{} is no EFI stub that firn can use; give {right} of systemd", path.display()))?;
        // Before all of it is read: a unified kernel image may be large.
        let mut stub = Self { path, contents, program, right, can_shrink: !options.without_image };
        stub.ensure_right(length, machine)?;
        file.read_to_end(&mut stub.contents).with_context(|| reading(&stub.path))?;
        stub.ensure_of_systemd(options.without_image)?;
        Ok(stub)
    }

    /// Makes sure that it is a stub for this machine, to which sections can be added.
    fn ensure_right(&self, length: u64, machine: Machine) -> Result<()> {
        let (path, right, found) = (self.path.display(), &self.right, self.program.machine);
        ensure!(
            found == machine,
            "the EFI stub {path} is for {found}, and the kernel is for {machine}; give {right} of systemd"
        );
        ensure_fit(&self.program, &ADDED).map_err(|error| self.sentence(error))?;
        ensure!(length <= LARGEST_STUB, "{path} has {length} bytes, which no EFI stub has; give {right} of systemd");
        Ok(())
    }

    /// Makes sure that it is not another program of systemd, or a stub that is too old.
    fn ensure_of_systemd(&self, without_image: bool) -> Result<()> {
        let (path, right) = (self.path.display(), &self.right);
        let Some(systemd) = systemd_program(&self.contents) else { return Ok(()) };
        ensure!(
            systemd.kind == "stub",
            "{path} is systemd-{}, which starts no kernel in its own file; give {right} of systemd",
            systemd.kind
        );
        if let (true, Some(version)) = (without_image, systemd.version) {
            ensure!(
                version >= COMBINES_RAMDISKS,
                "the stub is that of systemd {version}, which boots with one ramdisk only; give the stub of systemd \
                 {COMBINES_RAMDISKS} or newer with --stub, or leave out --without-image"
            );
        }
        Ok(())
    }

    /// Adds sections; see [`with_sections`].
    fn with_sections(&self, sections: &[NewSection]) -> Result<(Vec<u8>, Vec<Place>)> {
        with_sections(self.contents.clone(), &self.program, sections).map_err(|error| self.sentence(error))
    }

    fn sentence(&self, error: SectionError) -> anyhow::Error {
        let too_large = "the image would have more than the 4 GiB of a program for UEFI";
        match error {
            SectionError::Unfit(reason) => {
                anyhow!("the EFI stub {} {reason}; give {} as systemd has it", self.path.display(), self.right)
            }
            SectionError::TooLarge if self.can_shrink => anyhow!("{too_large}; leave the store out (--without-image)"),
            SectionError::TooLarge => {
                anyhow!("{too_large} even without the store; build it with fewer segments (--append)")
            }
        }
    }
}

/// The text of the section `.osrel`, which boot menus show (os-release(5)).
fn os_release(manifest: &Manifest) -> String {
    let label: String = manifest.label.chars().filter(|c| !"\"\\$`".contains(*c) && !c.is_control()).collect();
    format!("ID=nixos\nNAME=NixOS\nPRETTY_NAME=\"{label}\"\n")
}

/// Fills a file with zeros up to a place.
fn pad(out: &mut Output, place: u64) -> Result<()> {
    let missing = place.checked_sub(out.bytes()).context("a section is longer than it was")?;
    io::copy(&mut io::repeat(0).take(missing), out)?;
    Ok(())
}

#[cfg(test)]
mod tests;
