# Assertions for what firn-init does not do.
{
  config,
  lib,
  modulesPath,
  options,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; }) byOthers isVm optionValue;

  # What firn-init does not do: the option, what of it is in use, and what to do instead.
  refused =
    let
      enabled = path: instead: {
        inherit path instead;
        used = optionValue path false == true;
      };
      # nixpkgs has LVM on by default wherever systemd is in stage 1.
      enabledByOthers = path: instead: enabled path instead // {
        used = optionValue path false == true && byOthers path != [ ];
      };
      notEmpty = path: instead: {
        inherit path instead;
        used = !lib.elem (optionValue path "") [ "" { } [ ] ];
      };
      # NixOS' own are for the keyboard, or for disks that hold the system. Those of others do something.
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
          instead = "make it a systemd service of the running system";
        };
      mounts = removeAttrs config.fileSystems [
        "/"
        "/nix/.ro-store"
        "/nix/.rw-store"
        "/nix/store"
      ];
      # NixOS' stage 1 mounts these whatever neededForBoot says, since activation reads them or writes to them. (And /var/log, which can
      # wait for the running system.)
      isEarly =
        name:
        lib.elem (mounts.${name}.mountPoint or name) [
          "/etc"
          "/nix"
          "/usr"
          "/var"
          "/var/lib"
          "/var/lib/nixos"
        ];
      mountsNeeded = lib.filter (name: isEarly name || mounts.${name}.neededForBoot or false) (lib.attrNames mounts);
      inStage2 = "the running system can do it: it needs no disk to start";
      network = "the network is the running system's (networking.*, systemd.network.*)";
    in
    [
      (notEmpty [ "boot" "initrd" "luks" "devices" ]
        "unlock disks in the running system (environment.etc.crypttab, or cryptsetup in a service)"
      )
      (enabledByOthers [ "boot" "initrd" "services" "lvm" "enable" ] "set services.lvm.enable, for the running system")
      (enabled [ "boot" "initrd" "network" "enable" ] network)
      (enabled [ "boot" "initrd" "systemd" "network" "enable" ] network)
      (enabled [ "boot" "initrd" "network" "ssh" "enable" ] "set services.openssh.enable, for the running system")
      (enabled [ "boot" "initrd" "clevis" "enable" ] inStage2)
      (enabled [ "boot" "initrd" "unl0kr" "enable" ] inStage2)
      (enabled [ "boot" "initrd" "systemd" "repart" "enable" ] "set systemd.repart.enable, for the running system")
      (enabled [ "boot" "initrd" "systemd" "dmVerity" "enable" ]
        "set netboot.firn.verify: stage 1 then compares the store image with its checksum"
      )
      (notEmpty [ "boot" "initrd" "secrets" ]
        "a host's own files come in an archive of their own below /firn/root, or /.initrd-secrets (docs/boot.md)"
      )
    ]
    ++ map (name: {
      path = [
        "fileSystems"
        "\"${name}\""
      ]
      ++ lib.optional (!isEarly name) "neededForBoot";
      used = true;
      instead =
        (if isEarly name then "have the running system mount it elsewhere" else "leave it to the running system")
        + ", or keep the root on a disk (boot.persistence= on the kernel command line)";
    }) mountsNeeded
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
        { path, used, instead }:
        {
          assertion = !used;
          message = "${lib.concatStringsSep "." path} is set, and stage 1 is firn-init, which does not do that: ${instead}.";
        }
      ) refused
    );
  };
}
