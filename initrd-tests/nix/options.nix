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
      extraModprobeConfig = lines;
      kernel.enable = option types.bool true;
      supportedFilesystems = option (types.listOf types.str) [ ];
      crashDump.enable = flag;
      bcache.enable = flag;
      swraid.enable = flag;
      swraid.mdadmConf = lines;
      uvesafb.enable = flag;
      iscsi-initiator.name = option (types.nullOr types.str) null;
      plymouth.enable = flag;
      hardwareScan = option types.bool true;
      resumeDevice = option types.str "";
      loader = {
        grub.enable = option types.bool true;
        systemd-boot.enable = flag;
        timeout = option types.int 5;
      };
      initrd = {
        availableKernelModules = option (types.listOf types.str) [ ];
        kernelModules = option (types.listOf types.str) [ ];
        prepend = option (types.listOf types.str) [ ];
        compressor = option types.unspecified "zstd";
        secrets = any;
        supportedFilesystems = option (types.listOf types.str) [ ];
        includeDefaultModules = option types.bool true;
        compressorArgs = option (types.listOf types.str) [ ];
        checkJournalingFS = option types.bool true;
        verbose = option types.bool true;
        luks.devices = any;
        clevis.enable = flag;
        unl0kr.enable = flag;
        network.enable = flag;
        network.ssh.enable = flag;
        network.openvpn.enable = flag;
        extraUtilsCommands = lines;
        extraUdevRulesCommands = lines;
        extraFiles = any;
        services.udev.rules = lines;
        systemd = {
          contents = any;
          emergencyAccess = flag;
          extraBin = any;
          extraConfig = lines;
          managerEnvironment = any;
          mounts = option (types.listOf types.unspecified) [ ];
          network.enable = flag;
          repart.enable = flag;
          root = option types.str "fstab";
          services = any;
          storePaths = option (types.listOf types.unspecified) [ ];
          strip = option types.bool true;
          suppressedUnits = option (types.listOf types.str) [ ];
          targets = any;
          users = any;
        };
      };
    };

    fileSystems = option (types.attrsOf (types.attrsOf types.unspecified)) { };
    console.earlySetup = flag;
    services.lvm.enable = flag;
    zramSwap.enable = flag;
    networking.hostId = option (types.nullOr types.str) null;
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
