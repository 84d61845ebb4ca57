# A Debian kernel as two store paths, the image and its modules.
{ run, kernel }:

let
  release = builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile (kernel + "/release"));

  # The modules, of 90 MB, for a virtual machine whose system is in memory.
  kept = {
    kernel = [ "arch" "block" "crypto" "drivers" "fs" "lib" "mm" "net" ];
    "kernel/drivers" = [ "block" "cdrom" "char" "dax" "firmware" "md" "net" "nvdimm" "virtio" ];
    "kernel/drivers/firmware" = [ "qemu_fw_cfg" ];
    "kernel/drivers/net" = [ "dummy" "net_failover" "tap" "tun" "veth" "virtio_net" ];
    # Without disks and servers, but generic kernels have some for tests.
    "kernel/fs" = [
      "autofs" "binfmt_misc" "configfs" "efivarfs" "erofs" "exfat" "fat" "fuse" "isofs" "nls" "overlayfs" "pstore" "squashfs"
    ] ++ (if builtins.match ".*cloud.*" release == null then [ "btrfs" "f2fs" "xfs" ] else [ ]);
    "kernel/net" = [ "802" "8021q" "bridge" "core" "ipv4" "ipv6" "llc" "packet" "rfkill" "sched" "unix" "vmw_vsock" "wireless" ];
  };

  # "virtio_net.ko.xz" is kept as "virtio_net".
  keep = path: _:
    let
      inside = builtins.substring (builtins.stringLength tree + 1) (-1) path;
      parent = dirOf inside;
      stem = builtins.head (builtins.split "[.]ko" (baseNameOf inside));
    in
    !(kept ? ${parent}) || builtins.elem stem kept.${parent};

  tree = "${kernel}/lib/modules/${release}";
in
{
  inherit release;

  image = run "linux-${release}" {
    bzImage = builtins.path { path = kernel + "/bzImage"; name = "bzImage"; };
  } ''
    install -D -m 444 $bzImage $out/bzImage
  '';

  # Stripped, so without Debian's signatures: nixpkgs builds kernels without them (MODULE_SIG = no), and the check of three signatures
  # costs more than the rest of stage 1. Compressed as in the package: kernel 6.12's modules are. Debian runs depmod when it installs
  # a kernel.
  # Of a kernel that cannot load modules there is an empty directory, as with nixpkgs (pkgs/os-specific/linux/kmod/aggregator.nix).
  modules = if !builtins.pathExists tree then run "linux-${release}-no-modules" { } "mkdir $out" else run "linux-${release}-modules" {
    inherit release;
    tree = builtins.path { path = tree; name = "modules"; filter = keep; };
  } ''
    mkdir -p $out/lib/modules
    cp -r $tree $out/lib/modules/$release
    chmod -R u+w $out
    compressed=$(find $out -name '*.ko.xz')
    [[ ! $compressed ]] || xz --decompress $compressed
    find $out -name '*.ko' -exec strip --strip-debug {} +
    [[ ! $compressed ]] || xz --check=crc32 ''${compressed//.ko.xz/.ko}
    depmod --basedir $out $release
  '';
}
