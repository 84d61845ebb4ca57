//! Variables in the flash of a UEFI firmware: a boot entry, as the setup of the firmware makes one.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// A network card without a ROM, at the PCI address and with the MAC that [`variables`] names.
pub(crate) const CARD: [&str; 4] =
    ["-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network,romfile=,addr=5,mac=52:54:00:12:34:56"];

/// The first bytes of a store of variables: the GUID of variables with a time (EDK II, `AuthenticatedVariableFormat.h`).
const STORE: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];

/// The offset of the store in a file for QEMU, behind the header of the volume, and the offset of its first variable.
const STORE_AT: usize = 0x48;
const FIRST_AT: usize = STORE_AT + 28;

/// The GUID of UEFI's own variables.
const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

/// The variables of a firmware that fetches `url` and starts it, made from a file without variables, such as `OVMF_VARS.fd`.
///
/// # Errors
///
/// A file of another format, or one with variables.
pub fn variables(empty: &Path, url: &str) -> Result<Vec<u8>> {
    let mut flash = fs::read(empty).with_context(|| format!("reading {}", empty.display()))?;
    let entries = [variable("Boot0000", &entry(url)), variable("BootNext", &[0, 0])].concat();
    let place = flash.get(FIRST_AT..FIRST_AT + entries.len());
    ensure!(
        flash.get(STORE_AT..STORE_AT + 16) == Some(&STORE)
            && place.is_some_and(|bytes| bytes.iter().all(|b| *b == 0xff)),
        "{} is no file of variables of OVMF, or it has variables; give a copy of OVMF_VARS.fd",
        empty.display()
    );
    flash[FIRST_AT..FIRST_AT + entries.len()].copy_from_slice(&entries);
    Ok(flash)
}

/// A permanent variable, padded to the start of the next one.
fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    let name = utf16(name);
    // Start mark, state (valid), attributes (non-volatile, readable at boot and at run time); then a count, a time and no key.
    let mut bytes = vec![0xaa, 0x55, 0x3f, 0, 7, 0, 0, 0];
    bytes.resize(bytes.len() + 8 + 16 + 4, 0);
    for part in [&size(name.len()), &size(value.len()), &GLOBAL[..], &name, value] {
        bytes.extend(part);
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0xff);
    bytes
}

/// A boot entry (UEFI, `EFI_LOAD_OPTION`): the machine's only network card, an address from DHCP, and this URL.
fn entry(url: &str) -> Vec<u8> {
    // PciRoot(0x0)/Pci(0x5,0x0)/MAC(525400123456,0x1)/IPv4(0.0.0.0)/Uri(url)
    let mac = [&[0x52, 0x54, 0, 0x12, 0x34, 0x56][..], &[0; 26], &[1]].concat();
    let path = [
        node(2, 1, &[0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0]),
        node(1, 1, &[0, 5]),
        node(3, 0x0b, &mac),
        node(3, 0x0c, &[0; 23]),
        node(3, 0x18, url.as_bytes()),
        node(0x7f, 0xff, &[]),
    ]
    .concat();
    [&[1, 0, 0, 0][..], &size(path.len())[..2], &utf16("HTTP"), &path].concat()
}

/// A node of a device path.
fn node(kind: u8, subtype: u8, contents: &[u8]) -> Vec<u8> {
    [&[kind, subtype], &size(4 + contents.len())[..2], contents].concat()
}

/// A size, little-endian; some fields have room for the first two bytes only. A URL is the longest value here.
fn size(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// A string of UEFI: UTF-16, with a NUL at its end.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_store_is_written_to() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut flash = vec![0xff; 0x1000];
        flash[STORE_AT..STORE_AT + 16].copy_from_slice(&STORE);
        fs::write(&file, &flash).unwrap();
        let written = variables(file.path(), "http://10.0.2.2/nixos.efi").unwrap();
        assert_eq!(written.len(), flash.len());
        assert_eq!(written[FIRST_AT..FIRST_AT + 3], [0xaa, 0x55, 0x3f]);
        for contents in [written, vec![0xff; 0x1000], Vec::new()] {
            fs::write(&file, contents).unwrap();
            let error = variables(file.path(), "http://10.0.2.2/nixos.efi").unwrap_err().to_string();
            assert!(error.contains("no file of variables of OVMF"), "{error}");
        }
    }
}
