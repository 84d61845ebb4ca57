# The outputs: config.system.build.*.
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

  # Arguments of firn: an option that is repeated for each value, one that is left out if the value is null, one without a value.
  repeated = name: values: lib.concatMap (value: [ name (toString value) ]) values;
  optional = name: value: lib.optionals (value != null) [ name (toString value) ];
  flag = name: wanted: lib.optional wanted name;

  # A derivation that calls firn. The package of firn brings the tools that it runs.
  make =
    name: attributes: script:
    pkgs.runCommand name (attributes // { nativeBuildInputs = [ cfg.package ]; }) script;
  firn = arguments: "firn ${lib.escapeShellArgs arguments}";

  storeArguments = [
    "${toplevel}"
    "--closure-info"
    "${pkgs.closureInfo { rootPaths = config.netboot.storeContents; }}"
  ]
  # closureInfo does not say which paths it was given, and Nix in the running system keeps these.
  ++ repeated "--store-content" (
    lib.unique (lib.filter (path: path != "${toplevel}") (map (path: "${path}") config.netboot.storeContents))
  )
  ++ flag "--without-kernel" cfg.withoutKernel;

  packingArguments = [
    "--format"
    cfg.format
    "--compression"
    (if cfg.format == "squashfs" then config.netboot.squashfsCompression else cfg.erofsCompression)
  ]
  ++ optional "--block-size" cfg.blockSize
  ++ optional "--max-image" cfg.maxImage;

  # The compressors of NixOS' ramdisks that firn knows by the same names. Instead of any other, firn uses zstd.
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

  # The modules of a list that firn has to be told about: not the ones that it always packs. It leaves out what the system's modprobe.d
  # leaves out.
  additional =
    names:
    lib.unique (
      lib.filter (
        name:
        !lib.elem name [
          cfg.format
          "loop"
          "overlay"
        ]
      ) names
    );
  hardwareScan = optionValue [ "boot" "hardwareScan" ] true;

  ramdiskArguments = [
    "--firn-init"
    "${cfg.init}"
    "--compressor"
    compressor
    "--database"
    cfg.database
    "--image-placement"
    cfg.imagePlacement
  ]
  ++ repeated "--module" (additional (config.boot.initrd.kernelModules ++ cfg.modules))
  ++ repeated "--available-module" (
    lib.optionals hardwareScan (additional (config.boot.initrd.availableKernelModules ++ cfg.availableModules))
  )
  ++ optional "--rescue-shell" cfg.rescueShell
  ++ repeated "--prepend" (optionValue [ "boot" "initrd" "prepend" ] [ ] ++ cfg.prepend)
  ++ repeated "--append" cfg.append
  ++ flag "--allow-missing-modules" cfg.allowMissingModules
  ++ flag "--verify" cfg.verify;

  # A file, as in nixpkgs, or a directory of several files if the store is too large for one image.
  store = make "${cfg.format}.img" { } ''
    mkdir images
    ${firn ([ "image" ] ++ storeArguments ++ packingArguments)} --out images
    if [ "$(ls images | wc -l)" = 1 ]; then mv images/* $out; else mv images $out; fi
  '';

  # All outputs below are made from this one. The ramdisk is a separate output of the derivation: whatever refers to the ramdisk
  # alone then does not also refer to the store image.
  build = make "netboot" { outputs = [ "out" "ramdisk" ]; } ''
    images=${store}
    [ ! -d $images ] || images=$(printf '%s\n' ${store}/* | sort --version-sort)
    ${firn ([ "build" ] ++ storeArguments ++ ramdiskArguments)} $(printf -- '--image %s ' $images) --out $out
    mkdir $ramdisk
    for file in initrd zero-copy.cpio; do
      [ -e $out/$file ] || continue
      mv $out/$file $ramdisk/$file
      ln -s $ramdisk/$file $out/$file
    done
  '';

  ipxeTree = make "netboot-ipxe" { } ''
    ${
      firn (
        [
          "ipxe"
          "${build}"
        ]
        ++ flag "--split" cfg.ipxe.split
        ++ optional "--base-url" cfg.ipxe.baseUrl
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

  # nixos-anywhere runs kexec/run. The tarball brings static kexec and ip, so that the old system needs neither.
  installerTarball =
    make "kexec-tarball"
      {
        script = ../kexec-run.sh;
        carry = toString cfg.carry;
      }
      ''
        mkdir kexec $out
        cp ${kexecTree}/initrd.gz kexec/initrd
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
      inherit kexecTree;
      # Other modules define these two for themselves, such as nixos-images until 2025 the first.
      kexecTarball = lib.mkDefault kexecTarball;
      kexecScript = pkgs.runCommand "kexec-boot" { } "cp ${kexecTree}/kexec-boot $out";
      kexecInstallerTarball = lib.mkDefault installerTarball;
      netbootUki = uki;
    };
  };
}
