# The outputs: the firn command that makes each of them.
{
  build,
  config,
  everything,
  lib,
  old,
  other,
  package,
  pkgs,
  toplevel,
  ...
}:

let
  # The line of a derivation's script that calls firn. Older nixpkgs quote every argument: needless quotes are removed.
  call =
    output:
    let
      lines = builtins.filter builtins.isString (builtins.split "\n" output.buildCommand);
      line = builtins.head (lib.filter (line: builtins.match "[[:space:]]*firn .*" line != null) lines);
      part = part: if builtins.isList part then builtins.head part else part;
    in
    builtins.concatStringsSep "" (map part (builtins.split "'([[:alnum:],._+:@%/=-]+)'" line));

  closure = pkgs.closureInfo { rootPaths = [ toplevel ]; };
  store = "${toplevel} --closure-info ${closure}";
  of = build { };
  all = build everything;
  wholeStore = "${toplevel} --closure-info ${
    pkgs.closureInfo { rootPaths = (config everything).netboot.storeContents; }
  } --store-content ${other} --without-kernel";
in
{
  "the store image" = {
    actual = call of.squashfsStore;
    expected = "firn image ${store} --format squashfs --compression 'zstd -Xcompression-level 19' --out images";
  };
  # Derivations, strings, the system once more: as closureInfo takes them.
  "the paths that Nix keeps" =
    let
      contents = {
        netboot.storeContents = [
          other
          "${other}"
          toplevel
          "/nix/store/text"
        ];
      };
      info = pkgs.closureInfo { rootPaths = (config contents).netboot.storeContents; };
    in
    {
      actual = call (build contents).squashfsStore;
      expected =
        "firn image ${toplevel} --closure-info ${info} --store-content ${other} --store-content /nix/store/text"
        + " --format squashfs --compression 'zstd -Xcompression-level 19' --out images";
    };
  "the store image with every option" = {
    actual = call all.squashfsStore;
    expected = "firn image ${wholeStore} --format erofs --compression none --block-size 16K --max-image 1G --out images";
  };
  "the contents of the store" = {
    actual = builtins.sort builtins.lessThan (map toString (config everything).netboot.storeContents);
    expected = builtins.sort builtins.lessThan [ "${toplevel}" "${other}" ];
  };
  "the squashfs compression option of nixpkgs" = {
    actual = call (build { netboot.squashfsCompression = "lz4"; }).squashfsStore;
    expected = "firn image ${store} --format squashfs --compression lz4 --out images";
  };
  "the ramdisk" = {
    actual = call of.netbootBuild;
    expected = "firn build ${store} --firn-init /firn-init --compressor zstd --database prebuilt --image-placement auto $(printf -- '--image %s ' $images) --out $out";
  };
  "the ramdisk with every option" = {
    actual = call all.netbootBuild;
    expected =
      "firn build ${wholeStore} --firn-init /firn-init --compressor xz --database load --image-placement copy"
      + " --module dm_mod --module virtio_blk --available-module ahci --available-module nvme --available-module pcspkr --available-module virtio_net"
      + " --rescue-shell /busybox --prepend /ucode.img --prepend /more.img --append /host.cpio --allow-missing-modules --verify"
      + " $(printf -- '--image %s ' $images) --out $out";
  };
  "d_2_a_stage_1_that_searches_for_no_devices" = {
    actual =
      call
        (build {
          boot.hardwareScan = false;
          boot.initrd.availableKernelModules = [ "nvme" ];
        }).netbootBuild;
    expected = call of.netbootBuild;
  };
  "the ramdisk with a compressor that firn does not know" = {
    actual = call (build { boot.initrd.compressor = pkgs: "pigz"; }).netbootBuild == call of.netbootBuild;
    expected = true;
  };
  # Without the option of newer nixpkgs, with it, and against it.
  "kernels without some of the modules" = {
    actual =
      let
        allows = build: builtins.match ".* --allow-missing-modules .*" (call build) != null;
        initrd.boot.initrd.allowMissingModules = true;
        firn.netboot.firn.allowMissingModules = true;
        refused.netboot.firn.allowMissingModules = false;
      in
      map allows [
        (old { }).system.build.netbootBuild
        (old firn).system.build.netbootBuild
        (build initrd).netbootBuild
        (build {
          imports = [
            initrd
            refused
          ];
        }).netbootBuild
      ];
    expected = [
      false
      true
      true
      false
    ];
  };
  "the ramdisk is an output of the build" = {
    actual = of.netbootRamdisk.outPath;
    expected = of.netbootBuild.ramdisk.outPath;
  };
  "iPXE" = {
    actual = call of.netbootIpxeTree;
    expected = "firn ipxe ${of.netbootBuild} --out $out";
  };
  "iPXE with every option" = {
    actual = call all.netbootIpxeTree;
    expected = "firn ipxe ${all.netbootBuild} --split --base-url http://server/boot --out $out";
  };
  "kexec" = {
    actual = call of.kexecTree;
    expected = "firn kexec ${of.netbootBuild} --out $out";
  };
  "the tarball" = {
    actual = call of.kexecTarball;
    expected = ''        firn tarball ${of.netbootBuild} --prefix nixos-image-26.05-x86_64-linux --out "$file"'';
  };
  "the tarball of an older nixpkgs" = {
    actual = map (output: [
      output.name
      (call output)
    ]) [ (old { }).system.build.kexecTarball ];
    expected = [
      [
        "nixos-kexec-26.05-x86_64-linux.tar.zst"
        "firn tarball ${(old { }).system.build.netbootBuild} --prefix nixos-kexec-26.05-x86_64-linux --out $out"
      ]
    ];
  };
  "the script of the tarball for nixos-anywhere" = {
    actual = of.kexecInstallerTarball.script;
    expected = ../../../nix/kexec-run.sh;
  };
  "the image options of newer nixpkgs" = {
    actual = [
      (config { }).image.filePath
      of.image.outPath
    ];
    expected = [
      "tarball/nixos-image-26.05-x86_64-linux.tar.zst"
      of.kexecTarball.outPath
    ];
  };
  "UEFI" = {
    actual = call of.netbootUki;
    expected = "firn uki ${of.netbootBuild} --stub ${package "systemd"}/lib/systemd/boot/efi/linuxx64.efi.stub --out $out/nixos.efi";
  };
  "UEFI with every option" = {
    actual = call all.netbootUki;
    expected = "firn uki ${all.netbootBuild} --stub /stub.efi --without-image --append 'firn.verify=full quiet' --out $out/nixos.efi";
  };
}
