# Evaluates nix/module.nix in a whole nixpkgs. ./whole prints it.
{
  nixpkgs,
  others ? { }, # modules of other projects: see ./whole
}:

let
  lib = import (nixpkgs + "/lib");
  release = lib.trivial.release;

  base = {
    boot.loader.grub.enable = lib.mkDefault false;
    networking.hostId = lib.mkDefault "8425e349";
    nixpkgs.hostPlatform = "x86_64-linux";
    system.stateVersion = lib.mkOverride 900 release;
  };
  nixos =
    modules:
    import (nixpkgs + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [ base ] ++ modules;
    };
  firn = modules: nixos ([ ../../nix/module.nix ] ++ modules);
  plain = modules: nixos ([ (nixpkgs + "/nixos/modules/installer/netboot/netboot.nix") ] ++ modules);

  kinds = {
    scripted.boot.initrd.systemd.enable = false;
    systemd.boot.initrd.systemd.enable = true;
    sysusers = {
      boot.initrd.systemd.enable = true;
      systemd.sysusers.enable = true;
      users.mutableUsers = false;
    };
    etc-overlay = {
      boot.initrd.systemd.enable = true;
      system.etc.overlay.enable = true;
    };
    userborn = {
      boot.initrd.systemd.enable = true;
      services.userborn.enable = true;
    };
    nixos-init = {
      boot.initrd.systemd.enable = true;
      system.etc.overlay.enable = true;
      services.userborn.enable = true;
      system.nixos-init.enable = true;
    };
  };

  # A module, or a function of the checkout that a project's module is in.
  profiles = {
    alone = { };
    netboot-minimal = nixpkgs + "/nixos/modules/installer/netboot/netboot-minimal.nix";
    installation-device = nixpkgs + "/nixos/modules/profiles/installation-device.nix";
    desktop = {
      services.xserver.enable = true;
      services.xserver.displayManager.lightdm.enable = true;
      services.xserver.desktopManager.xfce.enable = true;
      hardware.bluetooth.enable = true;
      networking.networkmanager.enable = true;
    };
  };

  # What the two systems have that the other has not, of what a toplevel is made of.
  parts = config: {
    kernelParams = config.boot.kernelParams;
    etc = lib.attrNames config.environment.etc;
    units = lib.mapAttrsToList (name: unit: "${name} ${builtins.hashString "sha256" (unit.text or "")}") config.systemd.units;
    activation = lib.attrNames config.system.activationScripts;
    systemPackages = map (package: package.name or (toString package)) config.environment.systemPackages;
    fileSystems = lib.mapAttrsToList (
      name: mount: "${name} ${mount.fsType} ${toString mount.device} ${toString mount.options}"
    ) config.fileSystems;
    initrdModules = config.boot.initrd.kernelModules ++ config.boot.initrd.availableKernelModules;
    postBootCommands = [ config.boot.postBootCommands ];
  };
  differences =
    one: other:
    lib.concatMap (
      part:
      let
        ours = (parts one).${part};
        theirs = (parts other).${part};
        short = text: builtins.head (lib.splitString "\n" (builtins.substring 0 60 text)); 
      in
      map (it: "+${part} ${short it}") (lib.subtractLists theirs ours)
      ++ map (it: "-${part} ${short it}") (lib.subtractLists ours theirs)
    ) (lib.attrNames (parts one));

  outcome =
    kind: profile:
    let
      ours = firn [ kind profile ];
      theirs = plain [ kind profile ];
      failed = lib.filter (one: !one.assertion) ours.config.assertions;
    in
    if failed != [ ] then
      { refused = map (one: one.message) failed; }
    else
      {
        toplevel = ours.config.system.build.toplevel.drvPath;
        build = ours.config.system.build.netbootBuild.drvPath;
        warnings = lib.subtractLists theirs.config.warnings ours.config.warnings;
        differences = differences ours.config theirs.config;
      };

  declared = (nixos [ ]).options;
  isHere = kind: lib.hasAttrByPath kind declared;
  needs = {
    sysusers = [ "systemd" "sysusers" "enable" ];
    etc-overlay = [ "system" "etc" "overlay" "enable" ];
    userborn = [ "services" "userborn" "enable" ];
    nixos-init = [ "system" "nixos-init" "enable" ];
  };
in
{
  inherit release;

  systems = lib.mapAttrs (
    kind: module:
    lib.mapAttrs (
      _: profile: if isHere (needs.${kind} or [ ]) then outcome module profile else "not in this nixpkgs"
    ) profiles
  ) kinds;

  options = lib.genAttrs [ "scripted" "systemd" ] (
    kind:
    import ./outcome.nix {
      inherit kind lib;
      rows = import ./table.nix { inherit lib; };
      evaluate = example: firn [ kinds.${kind} example ];
    }
  );
}
