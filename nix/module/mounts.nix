# Assertions: file systems and swap that stage 1 would have to mount, unlock or resume from. Without these, what somebody writes to a disk
# would be in memory, and lost at the next boot.
{
  config,
  lib,
  modulesPath,
  options,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; }) isVm optionValue;

  cfg = config.netboot.firn;
  ofStore = [
    "/nix/.ro-store"
    "/nix/.rw-store"
    "/nix/store"
  ];
  others = removeAttrs config.fileSystems ([ "/" ] ++ ofStore);
  keep = "boot.persistence= on the kernel command line keeps the root on a disk";

  refusal = import ./refusal.nix;
  fileSystem = name: "fileSystems.\"${name}\"";

  root = lib.optional (config.fileSystems."/".fsType or "" != "tmpfs") (
    refusal {
      name = fileSystem "/";
      reason = "stage 1 makes a root in memory: what is written to it would be lost at the next boot";
      instead = "Remove it; ${keep}";
    }
  );

  # The store's mounts as ./boot.nix defines them, and the options that others may add.
  expected = {
    "/nix/.ro-store" = {
      fsType = cfg.format;
      device = "../nix-store.${cfg.format}";
      isOption =
        option:
        lib.elem option [
          "loop"
          "ro"
          "threads=multi"
        ];
    };
    "/nix/.rw-store" = {
      fsType = "tmpfs";
      device = "tmpfs";
      isOption = lib.hasPrefix "size=";
    };
    "/nix/store" = {
      fsType = "overlay";
      device = "overlay";
      isOption =
        option:
        lib.elem option [
          "lowerdir=/nix/.ro-store"
          "upperdir=/nix/.rw-store/store"
          "workdir=/nix/.rw-store/work"
        ];
    };
  };
  isOwn =
    name:
    let
      mount = config.fileSystems.${name};
      own = expected.${name};
      isKnown =
        option:
        own.isOption option || lib.hasPrefix "x-" option || option == "mode=0755" || option == "defaults";
      device = mount.device or null;
    in
    mount.fsType or "" == own.fsType
    && (device == null || device == own.device || own.fsType == "tmpfs" && device == "none")
    && lib.all isKnown (mount.options or [ ]);
  store = map (
    name:
    refusal {
      name = fileSystem name;
      reason = "stage 1 mounts the store from memory and would not do what it says";
      instead = "Remove it; netboot.firn.rwStoreSize is the size of the writable store, and ${keep}, with the writable store on it";
    }
  ) (lib.filter (name: !isOwn name) ofStore);

  # NixOS' stage 1 mounts these without neededForBoot, too, since activation reads them or writes to them (nixpkgs'
  # nixos/lib/utils.nix, pathsNeededForBoot). /var/log is left out: the running system can mount it later.
  isEarly =
    name:
    lib.elem (others.${name}.mountPoint or name) [
      "/etc"
      "/nix"
      "/usr"
      "/var"
      "/var/lib"
      "/var/lib/nixos"
    ];
  needed = map (
    name:
    refusal {
      name = fileSystem name + lib.optionalString (!isEarly name) ".neededForBoot";
      instead = "Let the running system mount it${lib.optionalString (isEarly name) " at another path"}, or keep the root on a disk (boot.persistence= on the kernel command line)";
    }
  ) (lib.filter (name: isEarly name || others.${name}.neededForBoot or false) (lib.attrNames others));

  # NixOS' stage 1 unlocks them; nothing else would.
  encrypted = map (
    name:
    refusal {
      name = "${name}.encrypted";
      reason = "firn's stage 1 unlocks no disks, and nobody else would";
      instead = "Unlock it in the running system (environment.etc.crypttab) and name the unlocked device here";
    }
  ) (
    map fileSystem (lib.filter (name: others.${name}.encrypted.enable or false) (lib.attrNames others))
    ++ lib.optional (lib.any (swap: swap.encrypted.enable or false) (optionValue [ "swapDevices" ] [ ])) "swapDevices.*"
  );

  # It would have systemd's stage 1 look for a root on a disk.
  discovered = lib.optional (optionValue [ "boot" "initrd" "systemd" "root" ] null == "gpt-auto") (
    refusal {
      name = "boot.initrd.systemd.root = \"gpt-auto\"";
      reason = "stage 1 makes a root in memory: what is written to it would be lost at the next boot";
      instead = "Remove it; ${keep}";
    }
  );

  resume = lib.optional (optionValue [ "boot" "resumeDevice" ] "" != "") (
    refusal {
      name = "boot.resumeDevice";
      reason = "firn's stage 1 resumes no session: it would be lost";
      instead = "Remove it; a system in memory cannot hibernate";
    }
  );
in
{
  config.assertions = lib.mkIf (!isVm) (root ++ discovered ++ store ++ needed ++ encrypted ++ resume);
}
