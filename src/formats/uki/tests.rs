use super::*;
use crate::formats::pe::tests::uki;

fn of(sections: &[(&str, &[u8])]) -> (Uki, u64) {
    let file = uki(sections);
    let length = file.len() as u64;
    (Uki::of(&Program::parse(&file, length).unwrap()).unwrap(), length)
}

#[test]
fn c_7_the_ramdisk_is_microcode_and_the_first_ramdisk() {
    let (uki, length) = of(&[(".initrd", b"12345"), (".linux", b"k"), (".ucode", b"abc"), (".initrd", b"other")]);
    let pieces = uki.ramdisk(length).unwrap();
    assert_eq!(
        pieces.iter().map(|piece| (piece.bytes, piece.zeros)).collect::<Vec<_>>(),
        [(3, 1), (5, 3)],
        "each part begins on a multiple of four"
    );
    assert!(pieces[0].offset > pieces[1].offset);
    let read: Vec<_> = uki.sections().map(|(_, section, is_read)| (section.name(), is_read)).collect();
    assert_eq!(read[2..].iter().map(|(_, is_read)| *is_read).collect::<Vec<_>>(), [true, true, true, false]);
    // The sections have 0x200 bytes each, and the microcode is the third of the four.
    let error = uki.ramdisk(length - 0x400).unwrap_err().to_string();
    assert!(error.contains("it is cut off: its section .ucode ends at byte"), "{error}");
}

#[test]
fn c_7_profiles_take_the_place_of_shared_sections() {
    let (uki, _) = of(&[
        (".cmdline", b"shared"),
        (".linux", b"k"),
        (".profile", b"ID=main"),
        (".profile", b"ID=debug"),
        (".cmdline", b"debug!"),
    ]);
    assert_eq!(uki.profiles(), 2);
    let bytes = |profile| uki.find(CMDLINE, profile).unwrap().memory;
    assert_eq!((bytes(0), bytes(1)), (6, 6));
    assert_ne!(uki.find(CMDLINE, 0), uki.find(CMDLINE, 1));
    assert_ne!(uki.find(PROFILE, 0), uki.find(PROFILE, 1));
    let profiles: Vec<_> = uki.sections().skip(2).map(|(profile, ..)| profile).collect();
    assert_eq!(profiles, [None, None, Some(0), Some(1), Some(1)]);
    assert!(uki.sections().all(|(.., is_read)| is_read));
}

#[test]
fn c_7_texts_of_sections() {
    assert_eq!(cmdline(b"\n init=/x\tquiet \n\0rest"), "init=/x quiet");
    assert_eq!(cmdline(b"\xff"), "\u{fffd}");
    let text =
        "# comment\nID=nixos\nNAME=\"Nix \\\"OS\\\"\"\nPRETTY_NAME='a \\ b'\nID=debian\n no line\nBAD=\"open\nEND=x\\";
    let found: Vec<_> = os_release(text).into_iter().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        found,
        [
            pair("BAD", "\"open"),
            pair("END", "x"),
            pair("ID", "debian"),
            pair("NAME", "Nix \"OS\""),
            pair("PRETTY_NAME", "a \\ b")
        ]
    );
}

#[test]
fn c_11_programs_of_systemd() {
    let program = |kind: &str, version| Some(SystemdProgram { kind: kind.into(), version });
    for (text, expected) in [
        ("#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####", program("stub", Some(257))),
        ("\0\0#### LoaderInfo: systemd-stub main ####", program("stub", None)),
        ("#### LoaderInfo: systemd-addon 257 ####", program("addon", Some(257))),
        ("#### LoaderInfo: systemd-stub", None),
        ("#### LoaderInfo: systemd-\u{1b}]0;x 257", None),
        ("#### LoaderInfo: systemd-\u{fffd} 257", None),
        ("", None),
    ] {
        assert_eq!(systemd_program(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn c_7_a_section_without_bytes_in_the_file_has_any_offset() {
    let section = |bytes| Section { name: *b".osrel\0\0", address: 0, memory: 5, offset: 900, bytes };
    assert_eq!(piece(&section(0), 10).unwrap(), Piece { offset: 0, bytes: 0, zeros: 5 });
    assert!(piece(&section(1), 10).is_err());
}
