# The settings for the boot: mounts, kernel modules and kernel parameters.
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

  # The size of a file system in memory: that of firn's option, or else that of `options`. As mount(8) does it, the last one counts.
  sizeOf =
    mountPoint: size:
    let
      sizes = lib.filter (lib.hasPrefix "size=") (config.fileSystems.${mountPoint}.options or [ ]);
    in
    if size != null || sizes == [ ] then size else lib.removePrefix "size=" (lib.last sizes);
  rwStoreSize = sizeOf "/nix/.rw-store" cfg.rwStoreSize;
  rootSize = sizeOf "/" cfg.rootSize;

  immutableEtc =
    optionValue [ "system" "etc" "overlay" "enable" ] false
    && !optionValue [ "system" "etc" "overlay" "mutable" ] true;
in
{
  config = {
    # As in netboot.nix: a boot from memory needs no boot menu, and building one would be a cyclic dependency.
    boot.loader.grub.enable = false;
    boot.loader.timeout = 10;

    # firn-init mounts these file systems without this. NixOS makes the fstab of the running system from it.
    fileSystems."/" = lib.mkImageMediaOverride {
      fsType = "tmpfs";
      options = [ "mode=0755" ];
    };

    # Whatever others say about these mounts is added or wins: ./mounts.nix refuses what stage 1 would not do.
    fileSystems."/nix/.ro-store" = {
      fsType = lib.mkDefault cfg.format;
      device = lib.mkDefault "../nix-store.${cfg.format}";
      options = [
        "loop"
      ]
      ++ lib.optional (cfg.format == "squashfs" && kernelAtLeast "6.2") "threads=multi";
      neededForBoot = lib.mkImageMediaOverride true;
      # NixOS knows that a squashfs has no fsck, but does not know it of an erofs.
      noCheck = lib.mkImageMediaOverride true;
    };

    # An option `size=` is the size of the writable store.
    fileSystems."/nix/.rw-store" = {
      fsType = lib.mkDefault "tmpfs";
      options = [ "mode=0755" ];
      neededForBoot = lib.mkImageMediaOverride true;
    };

    fileSystems."/nix/store" = {
      fsType = lib.mkDefault "overlay";
      device = lib.mkDefault "overlay";
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
      neededForBoot = lib.mkImageMediaOverride true;
    };

    # The links of newer nixpkgs to the parts of /etc, by which stage 1 finds them. nixpkgs 24.05 has neither them nor the bootspec's keys.
    system.extraSystemBuilderCmds = lib.mkIf (optionValue [ "system" "etc" "overlay" "enable" ] false) ''
      [ -e $out/etc-metadata-image ] || ln -s ${config.system.build.etcMetadataImage} $out/etc-metadata-image
      [ -e $out/etc-basedir ] || ln -s ${config.system.build.etcBasedir} $out/etc-basedir
    '';

    boot.initrd.availableKernelModules = [
      cfg.format
      "overlay"
    ];
    boot.initrd.kernelModules = [
      "loop"
      "overlay"
    ];

    # firn writes the parameters that it needs into its own command lines. They are here as well for configurations that make a
    # command line from boot.kernelParams. They come first, before a `--` of others.
    boot.kernelParams = lib.mkBefore (
      [
        "rootfstype=ramfs"
      ]
      ++ lib.optional (cfg.register != "prebuilt") "firn.register=${cfg.register}"
      ++ lib.optional (rwStoreSize != null) "firn.rw-store.size=${rwStoreSize}"
      ++ lib.optional (rootSize != null) "firn.root.size=${rootSize}"
      ++ lib.optional immutableEtc "firn.etc=immutable"
    );
  };
}
