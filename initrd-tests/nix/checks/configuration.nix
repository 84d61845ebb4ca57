# The settings of the module: mounts, kernel modules, kernel parameters, units. The user's settings win.
{
  complaints,
  config,
  everything,
  evaluate,
  lib,
  old,
  onKernel,
  other,
  package,
  toplevel,
  ...
}:

let
  inherit (lib) mkDefault mkForce;

  # The options below netboot.firn that lack a type, a default, a description or an example.
  undocumented =
    let
      leaves = set: lib.concatMap (option: if lib.isOption option then [ option ] else leaves option) (builtins.attrValues set);
    in
    lib.filter (
      option: !(option ? type && option ? default && option ? description && option ? example)
    ) (leaves (evaluate "new" { }).options.netboot.firn);
in
{
  "the mounts" = {
    actual = (config { }).fileSystems;
    expected = {
      "/" = {
        fsType = "tmpfs";
        options = [ "mode=0755" ];
      };
      "/nix/.ro-store" = {
        fsType = "squashfs";
        device = "../nix-store.squashfs";
        options = [
          "loop"
          "threads=multi"
        ];
        neededForBoot = true;
        noCheck = true;
      };
      "/nix/.rw-store" = {
        fsType = "tmpfs";
        options = [ "mode=0755" ];
        neededForBoot = true;
      };
      "/nix/store" = {
        fsType = "overlay";
        device = "overlay";
        options = [
          "lowerdir=/nix/.ro-store"
          "upperdir=/nix/.rw-store/store"
          "workdir=/nix/.rw-store/work"
        ];
        depends = [
          "/nix/.ro-store"
          "/nix/.rw-store/store"
          "/nix/.rw-store/work"
        ];
        neededForBoot = true;
      };
    };
  };
  "the mount of an erofs store image" = {
    actual = (config everything).fileSystems."/nix/.ro-store";
    expected = {
      fsType = "erofs";
      device = "../nix-store.erofs";
      options = [ "loop" ];
      neededForBoot = true;
      noCheck = true;
    };
  };
  "the mount of the store image with an old kernel" = {
    actual = (config { imports = [ (onKernel "6.1") ]; }).fileSystems."/nix/.ro-store".options;
    expected = [ "loop" ];
  };
  "the modules" = {
    actual = { inherit ((config { }).boot.initrd) kernelModules availableKernelModules; };
    expected = {
      kernelModules = [
        "loop"
        "overlay"
      ];
      availableKernelModules = [
        "squashfs"
        "overlay"
      ];
    };
  };
  "the boot loader" = {
    actual = { inherit ((config { }).boot.loader) grub timeout; };
    expected = {
      grub.enable = false;
      timeout = 10;
    };
  };
  "the command line" = {
    actual = (config { boot.kernelParams = [ "quiet" "--" "single" ]; }).boot.kernelParams;
    expected = [
      "rootfstype=ramfs"
      "quiet"
      "--"
      "single"
    ];
  };
  "the command line with every option" = {
    actual = (config everything).boot.kernelParams;
    expected = [
      "rootfstype=ramfs"
      "firn.register=none"
      "firn.rw-store.size=80%"
      "firn.root.size=4g"
    ];
  };
  "the command line with an immutable /etc" = {
    actual =
      (config {
        system.etc.overlay.enable = true;
        system.etc.overlay.mutable = false;
      }).boot.kernelParams;
    expected = [
      "rootfstype=ramfs"
      "firn.etc=immutable"
    ];
  };
  "d_2_the_size_of_the_writable_store_as_an_option_of_its_mount" = {
    actual =
      let
        set =
          options: size:
          config {
            fileSystems."/nix/.rw-store" = { inherit options; };
            netboot.firn.rwStoreSize = size;
          };
      in
      [
        (set [ "size=90%" ] null).fileSystems."/nix/.rw-store"
        (set [ "size=90%" ] null).boot.kernelParams
        (set [ "size=1g" "size=2g" ] null).boot.kernelParams
        (set (mkForce [ "mode=0755" ]) null).boot.kernelParams
        (set [ "size=90%" ] "80%").boot.kernelParams
      ];
    expected = [
      {
        fsType = "tmpfs";
        options = [
          "mode=0755"
          "size=90%"
        ];
        neededForBoot = true;
      }
      [ "rootfstype=ramfs" "firn.rw-store.size=90%" ]
      [ "rootfstype=ramfs" "firn.rw-store.size=2g" ]
      [ "rootfstype=ramfs" ]
      [ "rootfstype=ramfs" "firn.rw-store.size=80%" ]
    ];
  };
  "d_2_links_to_the_parts_of_etc" = {
    actual =
      let
        links =
          overlay:
          (config {
            system.etc.overlay.enable = overlay;
            system.build = {
              etcMetadataImage = "/nix/store/metadata";
              etcBasedir = "/nix/store/basedir";
            };
          }).system.extraSystemBuilderCmds;
      in
      [
        (links false)
        (links true)
      ];
    expected = [
      ""
      ''
        [ -e $out/etc-metadata-image ] || ln -s /nix/store/metadata $out/etc-metadata-image
        [ -e $out/etc-basedir ] || ln -s /nix/store/basedir $out/etc-basedir
      ''
    ];
  };
  "no unit registers the store once more" = {
    actual = builtins.attrNames (config { }).systemd.services;
    expected = [ "live-password" ];
  };

  "the settings of the user win" = {
    actual =
      let
        set = config {
          boot.loader.timeout = mkForce 1;
          fileSystems."/" = mkForce { fsType = "btrfs"; };
          system.stateVersion = "24.05";
          system.build.kexecInstallerTarball = other;
          systemd.services.mine.enable = true;
        };
      in
      [
        set.boot.loader.timeout
        set.fileSystems."/"
        set.system.stateVersion
        set.system.build.kexecInstallerTarball.name
        set.systemd.services.mine.enable
      ];
    expected = [
      1
      { fsType = "btrfs"; }
      "24.05"
      "other"
      true
    ];
  };
  "a default of the user wins" = {
    actual = (config { system.stateVersion = mkDefault "24.05"; }).system.stateVersion;
    expected = "24.05";
  };
  "nixpkgs' netboot.nix is disabled if another module imports it" = {
    actual = (config { imports = [ ../new/installer/netboot/netboot.nix ]; }).netboot.storeContents == [ toplevel ];
    expected = true;
  };
  "the netboot.nix of an older nixpkgs is disabled" = {
    actual = (old { imports = [ ../old/installer/netboot/netboot.nix ]; }).netboot.storeContents == [ toplevel ];
    expected = true;
  };
  "the toplevel does not depend on firn" = {
    actual =
      let
        set = config {
          netboot.firn.package = throw "the toplevel depends on firn";
          netboot.firn.init = throw "the toplevel depends on firn-init";
        };
      in
      builtins.deepSeq [
        set.fileSystems
        set.boot.kernelParams
        set.boot.loader
        set.systemd.services
        (complaints set)
      ] true;
    expected = true;
  };
  "the packages are firn's own by default" = {
    actual =
      let
        inherit ((evaluate "new" { }).options.netboot) firn;
      in
      [
        firn.package.default.outPath
        firn.init.default
      ];
    expected = [
      (package "firn").outPath
      "${package "firn-init"}/bin/firn-init"
    ];
  };
  "every option has a type, a default, a description and an example" = {
    actual = builtins.length undocumented;
    expected = 0;
  };
}
