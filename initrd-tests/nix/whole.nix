# Evaluates nix/module.nix in a whole nixpkgs, as lines of text. See ./whole.
{
  nixpkgs, # a checkout
  others ? null, # a directory with checkouts of the projects below
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

  systemd.boot.initrd.systemd.enable = true;
  # The kinds of systems, each with an option that not every nixpkgs has.
  kinds = {
    scripted = {
      module.boot.initrd.systemd.enable = false;
    };
    systemd = {
      module = systemd;
    };
    sysusers = {
      needs = "systemd.sysusers.enable";
      module = {
        imports = [ systemd ];
        systemd.sysusers.enable = true;
      };
    };
    etc-overlay = {
      needs = "system.etc.overlay.enable";
      module = {
        imports = [ systemd ];
        system.etc.overlay.enable = true;
      };
    };
    userborn = {
      needs = "services.userborn.enable";
      module = {
        imports = [ systemd ];
        services.userborn.enable = true;
      };
    };
    nixos-init = {
      needs = "system.nixos-init.enable";
      module = {
        imports = [ systemd ];
        system.etc.overlay.enable = true;
        system.nixos-init.enable = true;
        services.userborn.enable = true;
      };
    };
  };
  declared = (nixos [ ]).options;
  isHere = kind: !(kind ? needs) || lib.hasAttrByPath (lib.splitString "." kind.needs) declared;

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

  # What a toplevel is made of, as strings.
  parts = config: {
    activation = lib.attrNames config.system.activationScripts;
    etc = lib.attrNames config.environment.etc;
    fileSystems = lib.mapAttrsToList (name: mount: "${name} ${mount.fsType} ${toString mount.options}") config.fileSystems;
    kernelParams = config.boot.kernelParams;
    modules = config.boot.initrd.kernelModules ++ config.boot.initrd.availableKernelModules;
    packages = map (package: package.name or (toString package)) config.environment.systemPackages;
    postBootCommands = [ config.boot.postBootCommands ];
    units = lib.mapAttrsToList (name: unit: "${name}\n${withoutTriggers (toString (unit.text or ""))}") config.systemd.units;
  };
  # Some units name the path of the system's packages.
  withoutTriggers =
    text: lib.concatStringsSep "\n" (lib.filter (line: builtins.match "X-Re.*-Triggers=.*" line == null) (lib.splitString "\n" text));
  # The differences that firn means, as regular expressions: its kernel parameters and unit, the options of the store's mounts, and what
  # netboot.nix does after the boot and, in old versions, installs for it.
  meant = [
    "fileSystems /nix/(store|.ro-store|.rw-store) .*"
    "kernelParams rootfstype=ramfs"
    "packages (grub|syslinux).*"
    "postBootCommands .*"
    "units (live-password|register-nix-paths).service"
  ];
  differences =
    one: other:
    let
      line = part: text: "${part} ${builtins.head (lib.splitString "\n" text)}";
      all = lib.concatMap (
        part:
        let
          ours = (parts one).${part};
          theirs = (parts other).${part};
        in
        map (line part) (lib.subtractLists theirs ours ++ lib.subtractLists ours theirs)
      ) (lib.attrNames (parts one));
    in
    lib.filter (difference: !lib.any (known: builtins.match known difference != null) meant) (lib.unique all);

  # The lines about a system: "as netboot.nix", or what is wrong.
  report =
    ours: theirs:
    let
      failed = lib.filter (one: !one.assertion) ours.config.assertions;
      evaluated = lib.seq ours.config.system.build.toplevel.drvPath (
        lib.seq ours.config.system.build.netbootBuild.drvPath (
          lib.seq ours.config.system.build.kexecInstallerTarball.drvPath true
        )
      );
    in
    if failed != [ ] then
      map (one: "WRONG: refused: ${one.message}") failed
    else
      lib.optional evaluated "evaluates"
      ++ map (warning: "warning: ${warning}") (lib.subtractLists (theirs.config.warnings or [ ]) ours.config.warnings)
      ++ lib.optionals (theirs ? config) (
        let
          found = differences ours.config theirs.config;
        in
        if found == [ ] then [ "otherwise as netboot.nix" ] else map (one: "WRONG: differs from netboot.nix: ${one}") found
      );
  table = name: lines: lib.concatMapStrings (line: "${name}: ${line}\n") lines;

  foreign =
    let
      from = project: path: others + "/${project}/${path}";
      ofImages = {
        # Its kernel can be too old for it.
        boot.supportedFilesystems.bcachefs = lib.mkForce false;
        nixpkgs.overlays = [
        # Packages of newer nixpkgs that these modules only install.
        (
          _: previous:
          lib.mapAttrs (name: package: previous.${name} or package) {
            disko = previous.hello;
            nixos-facter = previous.hello;
            zfs_unstable = previous.zfsUnstable or previous.zfs;
          }
        )
        ];
      };
    in
    {
      nixos-images-kexec = [
        ofImages
        (from "nixos-images" "nix/kexec-installer/module.nix")
      ];
      # Of 2024, with its own output of the name kexecTarball and, until June, with a hook of the scripted stage 1.
      nixos-images-2024 = [
        ofImages
        (from "nixos-images-2024" "nix/kexec-installer/module.nix")
      ];
      nixos-images-netboot = [
        ofImages
        (from "nixos-images" "nix/netboot-installer/module.nix")
      ];
      nixos-generators-kexec = [
        {
          options = lib.genAttrs [ "formatAttr" "fileExtension" ] (_: lib.mkOption { type = lib.types.str; });
        }
        (from "nixos-generators" "formats/kexec.nix")
      ];
      disko = [
        (from "disko" "module.nix")
        {
          disko.devices.disk.main = {
            device = "/dev/vda";
            content = {
              type = "gpt";
              partitions.data = {
                size = "100%";
                content = {
                  type = "filesystem";
                  format = "ext4";
                  mountpoint = "/data";
                };
              };
            };
          };
        }
      ];
      agenix = [
        (from "agenix" "modules/age.nix")
        {
          age.secrets.key.file = ./whole.nix;
          age.identityPaths = [ "/etc/ssh/ssh_host_ed25519_key" ];
        }
      ];
      sops-nix = [
        (from "sops-nix" "modules/sops")
        {
          sops.validateSopsFiles = false;
          sops.defaultSopsFile = ./whole.nix;
          sops.age.sshKeyPaths = [ "/etc/ssh/ssh_host_ed25519_key" ];
          sops.secrets.key = { };
        }
      ];
    };
in
{
  # One string for each attribute: to evaluate them in one process takes too much memory.
  systems = lib.mapAttrs (
    kind: of:
    lib.mapAttrs (
      profile: module:
      table "${kind}, ${profile}" (
        if isHere of then report (firn [ of.module module ]) (plain [ of.module module ]) else [ "not in this nixpkgs" ]
      )
    ) profiles
  ) kinds;

  others = lib.mapAttrs (name: modules: table name (report (firn modules) { })) foreign;

  options = lib.genAttrs [ "scripted" "systemd" ] (
    kind:
    lib.concatMapStrings (
      one:
      table "${kind}, ${one.option}" [
        (
          if one.outcome == "as it should be" then
            one.expected
          else if one.outcome == "not in this nixpkgs" then
            one.outcome
          else
            "WRONG: should be ${one.expected}, and ${one.outcome}"
        )
      ]
    ) (
      import ./outcome.nix {
        inherit kind lib;
        rows = import ./table.nix { inherit lib; };
        evaluate = example: firn [ kinds.${kind}.module example ];
      }
    )
  );

  inherit release;
}
