use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

const DEP: &str = "kernel/fs/squashfs/squashfs.ko.xz:\n\
    kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko kernel/crypto/crc32c_generic.ko\n\
    kernel/lib/libcrc32c.ko: kernel/crypto/crc32c_generic.ko\n\
    kernel/crypto/crc32c_generic.ko:\n\
    kernel/arch/crc32c-intel.ko:\n\
    kernel/drivers/net/virtio-net.ko.zst: kernel/net/failover.ko\n\
    kernel/net/failover.ko:\n\
    a.ko:\nb.ko:\nc.ko: b.ko\n\
    a line without a colon\n";
const BUILTIN: &str = "kernel/drivers/block/loop.ko\nkernel/fs/some-fs.ko\n";
const ALIAS: &str = "# a comment\n\
    alias virtio:d00000001v* virtio_net\n\
    alias fs-some some_fs\n\
    alias crc32c crc32c_generic\n\
    alias crc32c crc32c_intel\n\
    alias gone no_such_module\n\
    alias nothing\n";
const SOFTDEP: &str = "# a comment\n\
    softdep squashfs pre: a no-such-module loop\n\
    softdep squashfs post: virtio:d00000001v00001AF4\n\
    softdep libcrc32c stray pre: crc32c\n\
    softdep b pre: c post: a\n\
    softdep\n";

fn texts() -> Texts {
    Texts { dep: DEP.into(), builtin: BUILTIN.into(), alias: ALIAS.into(), softdep: SOFTDEP.into() }
}

#[test]
fn names() {
    for (file, name) in [
        ("kernel/fs/overlayfs/overlay.ko", "overlay"),
        ("virtio-net.ko.zst", "virtio_net"),
        ("x/snd-hda-intel.ko.xz", "snd_hda_intel"),
        ("loop", "loop"),
        ("a.kontor/loop.ko.gz", "loop"),
        ("", ""),
    ] {
        assert_eq!(module_name(file), name);
    }
}

#[test]
fn load_orders() {
    let erofs = [
        "kernel/crypto/crc32c_generic.ko",
        "kernel/arch/crc32c-intel.ko",
        "kernel/lib/libcrc32c.ko",
        "kernel/fs/erofs/erofs.ko",
    ];
    let virtio_net = ["kernel/net/failover.ko", "kernel/drivers/net/virtio-net.ko.zst"];
    let cases: &[(&[&str], &[&str], &[&str])] = &[
        (&["erofs"], &erofs, &[]),
        (&["libcrc32c", "erofs", "erofs"], &erofs, &[]),
        (&["virtio-net"], &virtio_net, &[]),
        (&["virtio_net"], &virtio_net, &[]),
        (&["virtio:d00000001v00001AF4"], &virtio_net, &[]),
        (&["crc32c"], &["kernel/crypto/crc32c_generic.ko", "kernel/arch/crc32c-intel.ko"], &[]),
        (&["loop", "some_fs", "fs-some"], &[], &[]),
        (&["squashfs"], &["a.ko", "kernel/fs/squashfs/squashfs.ko.xz", virtio_net[0], virtio_net[1]], &[]),
        // A module that is needed comes first, though it has a soft dependency on the other.
        (&["b"], &["b.ko", "a.ko", "c.ko"], &[]),
        (&["c"], &["b.ko", "a.ko", "c.ko"], &[]),
        (&["overlay", "a", "", "gone"], &["a.ko"], &["overlay", "", "gone"]),
    ];
    let texts = texts();
    let index = Index::parse(&texts);
    for (names, files, missing) in cases {
        let expected = LoadOrder { files: files.to_vec(), missing: missing.to_vec() };
        assert_eq!(index.load_order(names), expected, "{names:?}");
    }
}

#[test]
fn a_9_names_in_modules_dep_come_before_aliases_and_built_in_modules() {
    let texts = Texts {
        dep: "kernel/crc32_generic.ko:\nupdates/loop.ko:\nf2fs.ko:\nother.ko:\nvirtio_net.ko:\n/opt/x.ko: f2fs.ko\n"
            .into(),
        builtin: "kernel/lib/crc32.ko\nkernel/drivers/loop.ko\nkernel/fs/some.ko\n".into(),
        alias: "alias crc32 crc32_generic\nalias loop other\nalias fs-f2fs f2fs\nalias fs-none some\n\
                alias dmi:*:pnMy Box:* other\nalias fs_other other\nalias xfs-x other\n"
            .into(),
        softdep: "softdep f2fs pre: crc32\n".into(),
    };
    let index = Index::parse(&texts);
    for (name, files) in [
        ("crc32", &["kernel/crc32_generic.ko"][..]),
        ("f2fs", &["kernel/crc32_generic.ko", "f2fs.ko"]),
        ("loop", &["updates/loop.ko"]),
        ("fs-none", &[]),
        ("some", &[]),
        ("dmi:bvnX:pnMy Box:x", &["other.ko"]),
        ("x", &["kernel/crc32_generic.ko", "f2fs.ko", "/opt/x.ko"]),
    ] {
        assert_eq!(index.load_order(&[name]), LoadOrder { files: files.into(), missing: Vec::new() }, "{name}");
    }
    // The alias of a device is not the path of a module.
    assert_eq!(index.load_order(&["of:Nnet/virtio_net"]).missing, ["of:Nnet/virtio_net"]);
    assert_eq!(index.file_systems().collect::<Vec<_>>(), ["fs-f2fs", "fs-none", "fs_other"]);
    assert_eq!(texts.only(&["/opt/x.ko"]).dep, "opt/x.ko: f2fs.ko\n");
}

#[test]
fn a_part_says_the_same_of_what_it_has() {
    let part = texts().only(&["kernel/fs/squashfs/squashfs.ko.xz", "kernel/drivers/net/virtio-net.ko.zst"]);
    assert_eq!(
        part,
        Texts {
            dep: "kernel/fs/squashfs/squashfs.ko:\n\
                  kernel/drivers/net/virtio-net.ko: kernel/net/failover.ko\n"
                .into(),
            builtin: BUILTIN.into(),
            alias: "alias virtio:d00000001v* virtio_net\n".into(),
            softdep: "softdep squashfs pre: a no-such-module loop\n\
                      softdep squashfs post: virtio:d00000001v00001AF4\n"
                .into(),
        }
    );
}

#[test]
fn every_text_has_its_file() {
    let texts = Texts::read(|name| Ok::<_, Infallible>(format!("the text of {name}"))).unwrap();
    for (name, text) in texts.named() {
        assert_eq!(text, format!("the text of {name}"));
    }
}

proptest! {
    /// Needs lead from each module to earlier ones, soft dependencies anywhere.
    #[test]
    fn whatever_the_soft_dependencies_each_file_comes_once_and_after_what_it_needs(
        needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12),
        soft in prop::collection::vec((0_usize..12, any::<bool>(), 0_usize..14), 0..20),
        asked in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
    ) {
        let mut closures: Vec<Vec<usize>> = Vec::new();
        for (module, needs) in needs.iter().enumerate() {
            let mut closure: Vec<_> = needs
                .iter()
                .filter(|_| module > 0)
                .map(|need| need.index(module))
                .flat_map(|need| closures[need].iter().copied().chain([need]))
                .collect();
            closure.sort_unstable();
            closure.dedup();
            closures.push(closure);
        }
        let file = |module: usize| format!("m{module}.ko");
        let dep = closures.iter().enumerate().map(|(module, closure)| {
            let needs: Vec<_> = closure.iter().rev().map(|need| file(*need)).collect();
            format!("{}: {}", file(module), needs.join(" "))
        });
        let softdep = soft.iter().map(|(module, before, other)| {
            format!("softdep m{module} {}: m{other}", if *before { "pre" } else { "post" })
        });
        let join = |lines: Vec<_>| lines.join("\n");
        let texts = Texts { dep: join(dep.collect()), softdep: join(softdep.collect()), ..Texts::default() };
        let index = Index::parse(&texts);
        let names: Vec<_> = asked.iter().map(|asked| format!("m{}", asked.index(closures.len()))).collect();
        let order = index.load_order(&names.iter().map(String::as_str).collect::<Vec<_>>());

        assert_eq!(order.missing, [""; 0]);
        let place = |module: usize| order.files.iter().position(|other| **other == file(module));
        for name in &names {
            assert!(order.files.contains(&format!("{name}.ko").as_str()));
        }
        for (number, name) in order.files.iter().enumerate() {
            assert!(!order.files[..number].contains(name));
            let module: usize = module_name(name)[1..].parse().unwrap();
            for need in &closures[module] {
                assert!(place(*need) < Some(number) && place(*need).is_some());
            }
        }
    }
}
