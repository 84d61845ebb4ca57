# The outputs, config.system.build.*: each is one call of firn.
{
  config,
  lib,
  modulesPath,
  options,
  pkgs,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; }) hasImageOptions optionValue;

  cfg = config.netboot.firn;
  inherit (config.system.build) toplevel;
  inherit (pkgs.stdenv.hostPlatform) system;

  words = name: values: lib.concatMap (value: [ name (toString value) ]) values;
  word = name: value: lib.optionals (value != null) [ name (toString value) ];
  flag = name: wanted: lib.optional wanted name;

  # Every output is one call of firn, which finds its tools by itself.
  make =
    name: attributes: script:
    pkgs.runCommand name (attributes // { nativeBuildInputs = [ cfg.package ]; }) script;
  firn = arguments: "firn ${lib.escapeShellArgs arguments}";

  storeWords = [
    "${toplevel}"
    "--closure-info"
    "${pkgs.closureInfo { rootPaths = config.netboot.storeContents; }}"
  ]
  ++ flag "--without-kernel" cfg.withoutKernel;

  packingWords = [
    "--format"
    cfg.format
    "--compression"
    (if cfg.format == "squashfs" then config.netboot.squashfsCompression else cfg.erofsCompression)
  ]
  ++ word "--block-size" cfg.blockSize
  ++ word "--max-image" cfg.maxImage;

  # Of what compresses the ramdisks of NixOS, firn knows these by the same names, and has its own in place of others.
  compressor =
    let
      name = optionValue [ "boot" "initrd" "compressor" ] "zstd";
    in
    if
      lib.elem name [
        "gzip"
        "lz4"
        "xz"
        "zstd"
      ]
    then
      name
    else
      "zstd";

  # Modules beside those that firn always packs, for which stage 1 need not look at the machine's devices, and without those that
  # are not to be loaded.
  others =
    names:
    let
      left = [
        cfg.format
        "loop"
        "overlay"
      ]
      ++ optionValue [ "boot" "blacklistedKernelModules" ] [ ];
    in
    lib.unique (lib.filter (name: !lib.elem name left) names);

  ramdiskWords = [
    "--firn-init"
    "${cfg.init}"
    "--compressor"
    compressor
    "--database"
    cfg.database
    "--image-placement"
    cfg.imagePlacement
  ]
  ++ words "--module" (others (config.boot.initrd.kernelModules ++ cfg.modules))
  ++ words "--available-module" (others (config.boot.initrd.availableKernelModules ++ cfg.availableModules))
  ++ word "--rescue-shell" cfg.rescueShell
  ++ words "--prepend" (optionValue [ "boot" "initrd" "prepend" ] [ ] ++ cfg.prepend)
  ++ words "--append" cfg.append
  ++ flag "--verify" cfg.verify;

  # A file as in nixpkgs, or a directory of several where the store is too large for one.
  store = make "${cfg.format}.img" { } ''
    mkdir images
    ${firn ([ "image" ] ++ storeWords ++ packingWords)} --out images
    if [ "$(ls images | wc -l)" = 1 ]; then mv images/* $out; else mv images $out; fi
  '';

  # What all other outputs are made of. The ramdisk is an output of its own, so that what refers to it does not refer to the store
  # image once more.
  build = make "netboot" { outputs = [ "out" "ramdisk" ]; } ''
    images=${store}
    [ ! -d $images ] || images=$(printf '%s\n' ${store}/* | sort --version-sort)
    ${firn ([ "build" ] ++ storeWords ++ ramdiskWords)} $(printf -- '--image %s ' $images) --out $out
    mkdir $ramdisk
    mv $out/initrd $ramdisk/initrd
    ln -s $ramdisk/initrd $out/initrd
  '';

  ipxeTree = make "netboot-ipxe" { } ''
    ${
      firn (
        [
          "ipxe"
          "${build}"
        ]
        ++ flag "--split" cfg.ipxe.split
        ++ word "--base-url" cfg.ipxe.baseUrl
      )
    } --out $out
  '';

  kexecTree = make "kexec-tree" { } ''
    ${firn [ "kexec" "${build}" ]} --out $out
  '';

  kexecTarball =
    if hasImageOptions then
      make config.image.baseName { } ''
        file=$out/${lib.escapeShellArg config.image.filePath}
        mkdir -p "$(dirname "$file")" $out/nix-support
        ${firn [ "tarball" "${build}" "--prefix" config.image.baseName ]} --out "$file"
        echo "file system-tarball $file" > $out/nix-support/hydra-build-products
        echo ${system} > $out/nix-support/system
      ''
    else
      let
        name = "nixos-kexec-${config.system.nixos.label}-${system}";
      in
      make "${name}.tar.zst" { } ''
        ${firn [ "tarball" "${build}" "--prefix" name ]} --out $out
      '';

  # nixos-anywhere runs kexec/run, and wants neither kexec nor ip of the machine.
  installerTarball =
    make "kexec-tarball"
      {
        script = ../kexec-run.sh;
        carry = toString cfg.carry;
      }
      ''
        mkdir kexec $out
        cp ${build.ramdisk}/initrd kexec/initrd
        cp ${kexecTree}/bzImage ${kexecTree}/kexec-boot kexec
        cp ${pkgs.pkgsStatic.kexec-tools}/bin/kexec ${
          pkgs.pkgsStatic.iproute2.override { iptables = null; }
        }/bin/ip kexec
        sed "s|@carry@|$carry|" $script > kexec/run
        chmod u+w kexec/initrd
        chmod +x kexec/run
        ln -s initrd kexec/initrd.gz
        tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --create kexec |
          gzip -n1 > $out/nixos-kexec-installer-${system}.tar.gz
      '';

  uki = make "netboot-uki" { } ''
    ${
      firn (
        [
          "uki"
          "${build}"
          "--stub"
          "${cfg.uki.stub}"
        ]
        ++ flag "--without-image" cfg.uki.withoutImage
        ++ lib.optionals (cfg.uki.append != "") [ "--append" cfg.uki.append ]
      )
    } --out $out/nixos.efi
  '';
in
{
  config = {
    netboot.storeContents = [ toplevel ];

    system.build = {
      squashfsStore = store;
      netbootBuild = build;
      netbootRamdisk = build.ramdisk;
      netbootIpxeTree = ipxeTree;
      netbootIpxeScript = pkgs.runCommand "netboot.ipxe" { } ''
        mkdir $out
        cp ${ipxeTree}/netboot.ipxe $out
      '';
      inherit kexecTree kexecTarball;
      kexecScript = pkgs.runCommand "kexec-boot" { } "cp ${kexecTree}/kexec-boot $out";
      kexecInstallerTarball = lib.mkDefault installerTarball;
      netbootUki = uki;
    };
  };
}
