# Configurations for the checks, and functions that evaluate them.
{ lib }:

let
  inherit (lib) mkDefault;

  package =
    name:
    derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "none";
    };
  firn = package "firn";
  toplevel = package "nixos-system";
  other = package "other";
  pkgs = import ../pkgs.nix // {
    buildPackages = { inherit callPackage; };
    pkgsStatic = {
      inherit callPackage;
      kexec-tools = package "kexec-tools";
      iproute2.override = _: package "iproute2";
    };
  };
  callPackage =
    file:
    { builder ? true }:
    assert file == ../../../nix/package.nix;
    package (if builder then "firn" else "firn-init");

  # The settings of every configuration here. The kernel has this version.
  base = version: {
    boot.kernelPackages.kernel.kernelAtLeast = least: builtins.compareVersions version least >= 0;
    system.build.toplevel = toplevel;
    systemd.package = package "systemd";
    netboot.firn.package = mkDefault firn;
    netboot.firn.init = mkDefault "/firn-init";
  };
  evaluate =
    generation: module:
    import ../evaluate.nix {
      inherit generation lib pkgs;
      modules = [
        (base "6.12")
        module
      ];
    };
  config = module: (evaluate "new" module).config;
  old = module: (evaluate "old" module).config;
  build = module: (config module).system.build;

  # Every option that changes an output or the boot.
  everything = {
    netboot.storeContents = [ other ];
    boot.blacklistedKernelModules = [ "pcspkr" ];
    boot.initrd = {
      kernelModules = [ "dm_mod" ];
      availableKernelModules = [
        "ahci"
        "nvme"
        "pcspkr"
      ];
      prepend = [ "/ucode.img" ];
      compressor = "xz";
    };
    netboot.firn = {
      format = "erofs";
      erofsCompression = "none";
      blockSize = "16K";
      maxImage = "1G";
      withoutKernel = true;
      database = "load";
      verify = true;
      allowMissingModules = true;
      imagePlacement = "copy";
      rescueShell = "/busybox";
      modules = [
        "dm_mod"
        "virtio_blk"
      ];
      availableModules = [ "virtio_net" ];
      prepend = [ "/more.img" ];
      append = [ "/host.cpio" ];
      register = "none";
      rwStoreSize = "80%";
      rootSize = "4g";
      ipxe.split = true;
      ipxe.baseUrl = "http://server/boot";
      uki.append = "firn.verify=full quiet";
      uki.withoutImage = true;
      uki.stub = "/stub.efi";
    };
  };
in
{
  inherit
    build
    config
    everything
    evaluate
    lib
    old
    other
    package
    pkgs
    toplevel
    ;

  # A configuration whose kernel has this version.
  onKernel = version: { boot.kernelPackages = lib.mkForce (base version).boot.kernelPackages; };

  # The messages of the assertions that fail in an evaluated configuration.
  complaints = config: map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);
}
