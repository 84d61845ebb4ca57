# What the configuration says of the boot: mounts, kernel modules, kernel parameters, no boot loader.
{
  config,
  lib,
  modulesPath,
  options,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; }) optionValue;

  cfg = config.netboot.firn;
  kernelAtLeast = config.boot.kernelPackages.kernel.kernelAtLeast or (_: false);

  immutableEtc =
    optionValue [ "system" "etc" "overlay" "enable" ] false
    && !optionValue [ "system" "etc" "overlay" "mutable" ] true;
in
{
  config = {
    # Its menu would be made of the toplevel, which is made of it.
    boot.loader.grub.enable = false;
    boot.loader.timeout = 10;

    # firn-init mounts these itself. They are here for the running system, whose fstab is made of them.
    fileSystems."/" = lib.mkImageMediaOverride {
      fsType = "tmpfs";
      options = [ "mode=0755" ];
    };

    fileSystems."/nix/.ro-store" = lib.mkImageMediaOverride {
      fsType = cfg.format;
      device = "../nix-store.${cfg.format}";
      options = [
        "loop"
      ]
      ++ lib.optional (cfg.format == "squashfs" && kernelAtLeast "6.2") "threads=multi";
      neededForBoot = true;
      # NixOS knows that a squashfs has none, and of an erofs it does not.
      noCheck = true;
    };

    fileSystems."/nix/.rw-store" = lib.mkImageMediaOverride {
      fsType = "tmpfs";
      options = [ "mode=0755" ];
      neededForBoot = true;
    };

    fileSystems."/nix/store" = lib.mkImageMediaOverride {
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

    boot.initrd.availableKernelModules = [
      cfg.format
      "overlay"
    ];
    boot.initrd.kernelModules = [
      "loop"
      "overlay"
    ];

    # Those without which the image would not be found are here, and not only in what firn makes, for whoever puts a command line
    # together of boot.kernelParams.
    boot.kernelParams = [
      "rootfstype=ramfs"
    ]
    ++ lib.optional (cfg.imagePlacement == "auto" && kernelAtLeast "6.8") "retain_initrd"
    ++ lib.optional (cfg.register != "prebuilt") "firn.register=${cfg.register}"
    ++ lib.optional (cfg.rwStoreSize != null) "firn.rw-store.size=${cfg.rwStoreSize}"
    ++ lib.optional (cfg.rootSize != null) "firn.root.size=${cfg.rootSize}"
    ++ lib.optional immutableEtc "firn.etc=immutable";
  };
}
