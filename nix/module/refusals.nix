# Assertions: options of NixOS' stage 1 that firn-init does not support, one that a store in memory makes useless, and what to use
# instead. What loses nothing is in ./warnings.nix.
{
  lib,
  modulesPath,
  options,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; })
    byOthers
    isSetByOthers
    isVm
    optionValue
    ;

  # Each entry is an option: its path, whether it is used, a sentence that says how to do without it, and the reason if it is not
  # that stage 1 does not support the option.
  refused =
    let
      enabled = path: instead: {
        inherit path instead;
        used = optionValue path false == true;
      };
      # nixpkgs enables LVM by default if stage 1 is systemd's.
      enabledByOthers = path: instead: enabled path instead // {
        used = optionValue path false == true && byOthers path != [ ];
      };
      notEmpty = path: instead: {
        inherit path instead;
        used = !lib.elem (optionValue path null) [ null "" { } [ ] ];
      };
      # What NixOS itself puts into its stage 1 is for its own tools. What others add would be lost.
      added = instead: path: {
        path = [
          "boot"
          "initrd"
        ]
        ++ path;
        inherit instead;
        used = isSetByOthers ([ "boot" "initrd" ] ++ path);
      };
      addedUnits = map (name: added "Set systemd.${name}, for the running system" [ "systemd" name ]) [
        "automounts"
        "mounts"
        "paths"
        "services"
        "slices"
        "sockets"
        "targets"
        "timers"
        "units"
      ];
      addedFiles =
        map
          (added "Append a cpio archive with the files to the ramdisk (netboot.firn.append); stage 1 runs no programs but its own")
          [
            [ "extraFiles" ]
            [ "extraUtilsCommands" ]
            [ "systemd" "contents" ]
            [ "systemd" "extraBin" ]
            [ "systemd" "initrdBin" ]
            [ "systemd" "packages" ]
            [ "systemd" "storePaths" ]
          ];
      addedRules =
        map (added "Set services.udev or systemd.network.links, for the running system: stage 1 runs no udev")
          [
            [ "extraUdevRulesCommands" ]
            [ "services" "udev" "binPackages" ]
            [ "services" "udev" "packages" ]
            [ "services" "udev" "rules" ]
          ];
      # NixOS' own hooks are for the keyboard or for disks that hold the system, and firn does not need them. The user's hooks would
      # be lost.
      commands =
        name:
        let
          path = [
            "boot"
            "initrd"
            name
          ];
        in
        {
          inherit path;
          used = optionValue path "" != "" && lib.any (definition: definition.value != "") (byOthers path);
          instead = "Make it a systemd service of the running system";
        };
      unlock = "Unlock disks in the running system, which needs no disk to start";
      network = "Configure the network of the running system (networking.*, systemd.network.*)";
    in
    [
      (added "Unlock disks in the running system (environment.etc.crypttab, or cryptsetup in a service)" [
        "luks"
        "devices"
      ])
      (enabledByOthers [ "boot" "initrd" "services" "lvm" "enable" ] "Set services.lvm.enable, for the running system")
      (enabled [ "boot" "initrd" "network" "enable" ] network)
      (enabled [ "boot" "initrd" "systemd" "network" "enable" ] network)
      (enabled [ "boot" "initrd" "network" "ssh" "enable" ] "Set services.openssh.enable, for the running system")
      (enabled [ "boot" "initrd" "network" "openvpn" "enable" ] "Set services.openvpn.servers, for the running system")
      (notEmpty [ "boot" "iscsi-initiator" "name" ]
        "Set services.openiscsi, for disks of the running system; the system itself is in memory"
      )
      (enabled [ "boot" "uvesafb" "enable" ]
        "Name the driver of the graphics card in boot.initrd.kernelModules"
      )
      (enabled [ "testing" "initrdBackdoor" ] "Set netboot.firn.rescueShell, and boot.debug1 on the kernel command line"
      )
      (enabled [ "boot" "initrd" "clevis" "enable" ] unlock)
      (enabled [ "boot" "initrd" "unl0kr" "enable" ] unlock)
      (enabled [ "boot" "initrd" "systemd" "repart" "enable" ] "Set systemd.repart.enable, for the running system")
      (enabled [ "boot" "initrd" "systemd" "dmVerity" "enable" ]
        "Set netboot.firn.verify: stage 1 then compares the store image with its SHA-256"
      )
      (notEmpty [ "boot" "initrd" "secrets" ]
        "Append a cpio archive to the ramdisk of the host, with the files below /firn/root for the running system, or below /.initrd-secrets for stage 1 alone (docs/boot.md)"
      )
      # Not of stage 1: the service of the running system reads all of the store image, and makes an inode in memory for each file.
      (
        enabled [ "nix" "optimise" "automatic" ]
          "Set nix.settings.auto-optimise-store: Nix then links the equal files of new store paths"
        // {
          reason = "linking the files of the store image takes memory and saves none";
        }
      )
    ]
    ++ addedUnits
    ++ addedFiles
    ++ addedRules
    ++ map commands [
      "preDeviceCommands"
      "preLVMCommands"
      "postDeviceCommands"
      "postResumeCommands"
      "postMountCommands"
      "preFailCommands"
    ];
in
{
  config = {
    assertions = lib.mkIf (!isVm) (
      map (
        { path, ... }@option:
        import ./refusal.nix (removeAttrs option [ "path" ] // { name = lib.concatStringsSep "." path; })
      ) refused
    );
  };
}
