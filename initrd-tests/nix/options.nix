# The NixOS options that nix/module.nix sets or reads, with their defaults.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  option = type: default: mkOption { inherit type default; };
  flag = option types.bool false;
  lines = option types.lines "";
  any = option (types.attrsOf types.unspecified) { };
in
{
  options = {
    assertions = option (types.listOf types.unspecified) [ ];
    warnings = option (types.listOf types.str) [ ];

    boot = {
      kernelPackages = mkOption { type = types.unspecified; };
      kernelParams = option (types.listOf types.str) [ ];
      blacklistedKernelModules = option (types.listOf types.str) [ ];
      plymouth.enable = flag;
      hardwareScan = option types.bool true;
      resumeDevice = option types.str "";
      loader = {
        grub.enable = option types.bool true;
        timeout = option types.int 5;
      };
      initrd = {
        availableKernelModules = option (types.listOf types.str) [ ];
        kernelModules = option (types.listOf types.str) [ ];
        prepend = option (types.listOf types.str) [ ];
        compressor = option types.unspecified "zstd";
        secrets = any;
        luks.devices = any;
        network.enable = flag;
        network.ssh.enable = flag;
        systemd.network.enable = flag;
        extraUtilsCommands = lines;
        extraFiles = any;
        services.udev.rules = lines;
        systemd.services = any;
        systemd.emergencyAccess = flag;
      };
    };

    fileSystems = option (types.attrsOf (types.attrsOf types.unspecified)) { };
    swapDevices = option (types.listOf types.unspecified) [ ];
    nix = {
      optimise.automatic = flag;
      settings = any;
    };
    system = {
      extraSystemBuilderCmds = lines;
      build = option (types.lazyAttrsOf types.unspecified) { };
      stateVersion = mkOption { type = types.str; };
      nixos.label = option types.str "26.05";
      nixos.tags = option (types.listOf types.str) [ ];
    };
    systemd.package = mkOption { type = types.package; };
    systemd.services = option (types.attrsOf (types.attrsOf types.unspecified)) { };
  };
}
