# What the module sets in a configuration, and how it gives way to what the user sets.
{ complaints, config, everything, evaluate, lib, old, onKernel, other, pkgs, toplevel, ... }:

let
  inherit (lib) mkDefault mkForce;

  # Options of the module's own without a type, a default, a description or an example.
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
  "the store's mount of an erofs" = {
    actual = (config everything).fileSystems."/nix/.ro-store";
    expected = {
      fsType = "erofs";
      device = "../nix-store.erofs";
      options = [ "loop" ];
      neededForBoot = true;
      noCheck = true;
    };
  };
  "the store's mount on an old kernel" = {
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
    actual = (config { }).boot.loader;
    expected = {
      grub.enable = false;
      timeout = 10;
    };
  };
  "the command line" = {
    # Who comes first is not for a module to say.
    actual = builtins.sort builtins.lessThan (config { boot.kernelParams = [ "quiet" ]; }).boot.kernelParams;
    expected = [
      "quiet"
      "retain_initrd"
      "rootfstype=ramfs"
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
  "the command line of an old kernel" = {
    actual = (config { imports = [ (onKernel "6.6") ]; }).boot.kernelParams;
    expected = [ "rootfstype=ramfs" ];
  };
  "the command line of an /etc that cannot be written to" = {
    actual =
      (config {
        system.etc.overlay.enable = true;
        system.etc.overlay.mutable = false;
      }).boot.kernelParams;
    expected = [
      "rootfstype=ramfs"
      "retain_initrd"
      "firn.etc=immutable"
    ];
  };
  "what firn-init has done is switched off" = {
    actual = (config { }).systemd.services.register-nix-paths;
    expected.enable = false;
  };

  "options that a user has set" = {
    actual =
      let
        set = config {
          boot.loader.timeout = mkForce 1;
          fileSystems."/" = mkForce { fsType = "btrfs"; };
          system.stateVersion = "24.05";
          system.build.kexecInstallerTarball = other;
          systemd.services.register-nix-paths.enable = true;
          systemd.services.mine.enable = true;
        };
      in
      [
        set.boot.loader.timeout
        set.fileSystems."/"
        set.system.stateVersion
        set.system.build.kexecInstallerTarball.name
        set.systemd.services.register-nix-paths.enable
        set.systemd.services.mine.enable
      ];
    expected = [
      1
      { fsType = "btrfs"; }
      "24.05"
      "other"
      true
      true
    ];
  };
  "a default of a user" = {
    actual = (config { system.stateVersion = mkDefault "24.05"; }).system.stateVersion;
    expected = "24.05";
  };
  "nixpkgs' own module, by whatever brings it in" = {
    actual = (config { imports = [ ../new/installer/netboot/netboot.nix ]; }).netboot.storeContents == [ toplevel ];
    expected = true;
  };
  "nixpkgs' own module of an older nixpkgs" = {
    actual = (old { imports = [ ../old/installer/netboot/netboot.nix ]; }).netboot.storeContents == [ toplevel ];
    expected = true;
  };
  "the toplevel takes nothing that firn makes" = {
    actual =
      let
        set = config {
          netboot.firn.package = throw "the toplevel asks for firn";
          netboot.firn.init = throw "the toplevel asks for firn-init";
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
  "every option has a type, a default, a description and an example" = {
    actual = builtins.length undocumented;
    expected = 0;
  };
}
