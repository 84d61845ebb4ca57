# What becomes of NixOS' options that touch stage 1: the rows of the table in docs/nixos.md, each with configurations that show it.
#
# ./checks/table.nix evaluates them over the declarations in this directory, ./whole.nix over a whole nixpkgs.
{ lib }:

let
  inherit (lib) mkForce;

  # An example: a value of an option, and what shows that it took effect, a function of the configuration.
  set = option: value: example option value (_: true);
  example = option: value: shows: {
    inherit option value shows;
    also = { }; # settings that NixOS demands with it
  };

  # A row: the text of its first column, what becomes of the option, a text, examples. The two kinds of stage 1 differ in a few.
  row = options: is: text: examples: {
    inherit options text examples;
    scripted = is;
    systemd = is;
  };
  honoured = options: row options "honoured";
  refused = options: row options "refused";
  warns = options: row options "warning";
  needless = options: text: examples: row options "not needed" text examples;
  later = options: row options "running system";

  # What the builder is told, and what the kernel is told. Older nixpkgs quote every argument.
  builds =
    text: config: lib.hasInfix text (builtins.replaceStrings [ "'" ] [ "" ] config.system.build.netbootBuild.buildCommand);
  boots = word: config: lib.elem word config.boot.kernelParams;

  disk = {
    device = "/dev/vda";
    fsType = "ext4";
  };
in
[
  (honoured "`boot.initrd.kernelModules`, `availableKernelModules`"
    "with the [firmware](boot.md#modules) that the modules name"
    [
      (example "boot.initrd.kernelModules" [ "dm_mod" ] (builds "--module dm_mod"))
      (example "boot.initrd.availableKernelModules" [ "nvme" ] (builds "--available-module nvme"))
    ]
  )
  (honoured "`boot.blacklistedKernelModules`, `boot.extraModprobeConfig`"
    "from the system's modprobe.d: [blacklist, options, softdep, alias](boot.md#modules). A module with an `install` command is the running system's"
    [
      (set "boot.blacklistedKernelModules" [ "sd-mod" ])
      (set "boot.extraModprobeConfig" "options vfio_pci ids=1:2")
    ]
  )
  (honoured "`boot.hardwareScan = false`" "stage 1 loads no module for a device" [
    (example "boot.hardwareScan" false (config: !builds "--available-module" config))
  ])
  (honoured "`boot.kernelParams`, `boot.consoleLogLevel`"
    "firn's own words come first, before a `--` of others. `kernelParams` that the kernel would cut are refused ([limits](boot.md#when-it-fails))"
    [
      (example "boot.kernelParams" [ "a=1" "--" "b" ] (
        config: lib.hasInfix "rootfstype=ramfs a=1 -- b" (toString config.boot.kernelParams)
      ))
    ]
  )
  (honoured "`boot.kernelPackages`, `boot.kernelPatches`, `boot.extraModulePackages`"
    "a kernel before Linux 5.6 is refused; 5.15 is the first for an overlay on `/etc`"
    [ ]
  )
  (refused "`boot.kernel.enable = false`, `boot.isContainer`" "every output has a kernel" [
    (set "boot.kernel.enable" false)
  ])
  (honoured "`boot.initrd.prepend`, `hardware.cpu.*.updateMicrocode`" "microcode" [
    (example "boot.initrd.prepend" [ "/ucode.img" ] (builds "--prepend /ucode.img"))
  ])
  (honoured "`hardware.firmware`, `enableRedistributableFirmware`, `firmwareCompression`, `amdgpu.initrd.enable`"
    "the [firmware](boot.md#modules) of the modules in the ramdisk comes from it"
    [ ]
  )
  (honoured "`boot.initrd.compressor`"
    "if it is `\"zstd\"`, `\"xz\"`, `\"gzip\"` or `\"lz4\"`; zstd otherwise. It compresses firn's own segment, not the store image"
    [ (example "boot.initrd.compressor" "xz" (builds "--compressor xz")) ]
  )
  (honoured "`boot.initrd.allowMissingModules`" "`netboot.firn.allowMissingModules` is there with any nixpkgs" [
    (example "boot.initrd.allowMissingModules" true (builds "--allow-missing-modules"))
  ])
  (honoured "`boot.supportedFilesystems`, `boot.initrd.supportedFilesystems`, `includeDefaultModules`"
    "they add to the two lists of modules"
    [
      (set "boot.supportedFilesystems" [ "ext4" ])
      (set "boot.initrd.supportedFilesystems" [ "ext4" ])
      (set "boot.initrd.includeDefaultModules" false)
    ]
  )
  (honoured "`networking.hostId`" "" [ (set "networking.hostId" "8425e349") ])
  (
    honoured "`system.etc.overlay.enable`" "with nixos-init and without; NixOS has it with systemd's stage 1 only" [
      (set "system.etc.overlay.enable" true)
    ]
    // {
      scripted = "NixOS refuses";
    }
  )
  (
    honoured "`system.etc.overlay.mutable = false`" "it becomes `firn.etc=immutable`" [
      (
        example "system.etc.overlay" {
          enable = true;
          mutable = false;
        } (boots "firn.etc=immutable")
        // {
          also.systemd.sysusers.enable = true;
        }
      )
    ]
    // {
      scripted = "NixOS refuses";
    }
  )
  (needless "`boot.initrd.enable`, `verbose`, `compressorArgs`, `checkJournalingFS`, `systemd.strip`, `osRelease`"
    "NixOS' own ramdisk is built as they say, and not used"
    [
      (set "boot.initrd.verbose" false)
      (set "boot.initrd.compressorArgs" [ "-3" ])
      (set "boot.initrd.checkJournalingFS" false)
      (set "boot.initrd.systemd.strip" false)
    ]
  )
  (needless "`boot.loader.*`" "a boot from memory has no boot loader on a disk, and `nixos-rebuild switch` installs none" [
    (set "boot.loader.systemd-boot.enable" true)
  ])

  (honoured "`fileSystems.\"/\"`"
    "a root in memory, as with `netboot.nix`, whatever others say without `mkForce`. `size=` of a tmpfs is `netboot.firn.rootSize`"
    [
      (set "fileSystems" { "/" = disk; })
      (example "fileSystems" {
        "/" = mkForce {
          device = "none";
          fsType = "tmpfs";
          options = [ "size=2G" ];
        };
      } (boots "firn.root.size=2G"))
    ]
  )
  (refused "`fileSystems.\"/\"` by `mkForce`, of another type; `boot.initrd.systemd.root = \"gpt-auto\"`"
    "what is written to it would be in memory. `boot.persistence=` keeps a [root on a disk](boot.md#a-root-that-stays)"
    [
      (set "fileSystems" { "/" = mkForce disk; })
      (set "fileSystems" { "/" = mkForce (disk // { autoFormat = true; }); })
      (set "boot.initrd.systemd.root" "gpt-auto")
    ]
  )
  (honoured "`fileSystems.\"/nix/.rw-store\".options`" "`size=` is `netboot.firn.rwStoreSize`" [
    (example "fileSystems" { "/nix/.rw-store".options = [ "size=90%" ]; } (boots "firn.rw-store.size=90%"))
  ])
  (refused "`fileSystems.\"/nix/store\"`, `\"/nix/.ro-store\"`, `\"/nix/.rw-store\"`"
    "if they say another thing than the module itself, such as a disk, an option or a layer more"
    [
      (set "fileSystems" { "/nix/store" = mkForce disk; })
      (set "fileSystems" { "/nix/.rw-store" = mkForce disk; })
      (set "fileSystems" { "/nix/.ro-store" = mkForce disk; })
      (set "fileSystems" { "/nix/.rw-store".options = [ "noexec" ]; })
      (set "fileSystems" { "/nix/store".options = [ "lowerdir=/nix/.ro-store:/other" ]; })
    ]
  )
  (refused "`fileSystems.<name>.neededForBoot`" "but for the root and the store. Stratis and ZFS are no different" [
    (set "fileSystems" { "/persist" = disk // { neededForBoot = true; }; })
  ])
  (refused "`fileSystems.\"/etc\"`, `\"/nix\"`, `\"/usr\"`, `\"/var\"`, `\"/var/lib\"`, `\"/var/lib/nixos\"`"
    "activation reads them or writes to them before the running system could mount them. `\"/var/log\"` is the running system's"
    [ (set "fileSystems" { "/var" = disk; }) ]
  )
  (refused "`fileSystems.<name>.encrypted`, `swapDevices.*.encrypted`"
    "nobody would unlock them; `environment.etc.crypttab` is the running system's"
    [
      (set "fileSystems" {
        "/data" = disk // {
          encrypted = {
            enable = true;
            label = "data";
            blkDev = "/dev/vda2";
          };
        };
      })
      (set "swapDevices" [
        {
          device = "/dev/mapper/swap";
          encrypted = {
            enable = true;
            label = "swap";
            blkDev = "/dev/vda2";
          };
        }
      ])
    ]
  )
  (later "`fileSystems.<name>`, `swapDevices`, `zramSwap`" "all others, without `neededForBoot`" [
    (set "fileSystems" { "/data" = disk; })
    (set "swapDevices" [ { device = "/dev/vdb"; } ])
  ])
  (refused "`boot.resumeDevice`" "a session that hibernated would be lost" [ (set "boot.resumeDevice" "/dev/vda") ])
  (later "`boot.swraid`, `boot.bcache`, `boot.zfs.extraPools`, `services.lvm`, `services.multipath`"
    "for data: it assembles arrays, volumes and pools"
    [
      (set "boot.swraid" {
        enable = true;
        mdadmConf = "MAILADDR root";
      })
      (set "boot.bcache.enable" true)
      (set "services.lvm.enable" true)
      (set "zramSwap.enable" true)
    ]
  )
  (refused "`boot.initrd.services.lvm.enable`"
    "if anybody but nixpkgs itself sets it, which has it on by default where systemd is in stage 1"
    [ (set "boot.initrd.services.lvm.enable" true) ]
  )
  (refused "`boot.initrd.luks.devices`, `clevis`, `unl0kr`" "stage 1 unlocks no disks" [
    (set "boot.initrd.luks.devices" { data.device = "/dev/vda"; })
    (set "boot.initrd.clevis.enable" true)
    (set "boot.initrd.unl0kr.enable" true)
  ])
  (refused "`boot.initrd.network`, `systemd.network`, `boot.iscsi-initiator`"
    "if enabled, or named; `networking.*` and `services.openiscsi` are the running system's"
    [
      (set "boot.initrd.network.enable" true)
      (set "boot.initrd.network.ssh.enable" true)
      (set "boot.initrd.network.openvpn.enable" true)
      (set "boot.initrd.systemd.network.enable" true)
      (set "boot.iscsi-initiator.name" "iqn.2024-01.org.example:host")
    ]
  )
  (refused "`boot.initrd.secrets`"
    "the ramdisk is in the store of the build machine. [Files of one host](boot.md#files-of-one-host) come by an archive of their own"
    [ (set "boot.initrd.secrets" { "/key" = "/key"; }) ]
  )
  (
    refused
      "`boot.initrd.preDeviceCommands`, `preLVMCommands`, `postDeviceCommands`, `postResumeCommands`, `postMountCommands`, `preFailCommands`"
      "if anybody but nixpkgs itself sets them: make a systemd service of the running system"
      (map (name: set "boot.initrd.${name}" "echo") [
        "preDeviceCommands"
        "preLVMCommands"
        "postDeviceCommands"
        "postResumeCommands"
        "postMountCommands"
        "preFailCommands"
      ])
  )
  (refused
    "`boot.initrd.systemd.services`, `mounts`, `automounts`, `paths`, `slices`, `sockets`, `targets`, `timers`, `units`"
    "in the same way: move them to `systemd.*`"
    [
      (set "boot.initrd.systemd.services" { mine.script = "true"; })
      (set "boot.initrd.systemd.mounts" [
        {
          what = "/dev/vda";
          where = "/sysroot/data";
        }
      ])
      (set "boot.initrd.systemd.targets" { mine.description = "mine"; })
    ]
  )
  (refused
    "`boot.initrd.extraFiles`, `extraUtilsCommands`, `systemd.contents`, `storePaths`, `extraBin`, `initrdBin`, `packages`"
    "in the same way: `netboot.firn.append` adds an archive of files"
    [
      (set "boot.initrd.extraFiles" { "/file".source = "/file"; })
      (set "boot.initrd.extraUtilsCommands" "true")
      (set "boot.initrd.systemd.contents" { "/etc/file".text = "x"; })
      (set "boot.initrd.systemd.storePaths" [ "/file" ])
      (set "boot.initrd.systemd.extraBin" { x = "/file"; })
    ]
  )
  (refused "`boot.initrd.services.udev`, `extraUdevRulesCommands`"
    "in the same way: stage 1 runs no udev. `services.udev` and `systemd.network.links` are the running system's"
    [
      (set "boot.initrd.services.udev.rules" "ACTION==\"add\"")
      (set "boot.initrd.extraUdevRulesCommands" "true")
    ]
  )
  (refused "`boot.initrd.systemd.repart`, `dmVerity`"
    "`systemd.repart` is the running system's; `netboot.firn.verify` verifies the store image"
    [ (set "boot.initrd.systemd.repart.enable" true) ]
  )
  (refused "`boot.uvesafb.enable`" "name the driver of the graphics card in `boot.initrd.kernelModules`" [
    (set "boot.uvesafb.enable" true)
  ])
  (warns "`boot.plymouth.enable`, `console.earlySetup`" "splash, font and keyboard come with the running system" [
    (set "boot.plymouth.enable" true)
    (set "console.earlySetup" true)
  ])
  (warns "`boot.initrd.systemd.emergencyAccess`" "`netboot.firn.rescueShell` is the shell of stage 1" [
    (set "boot.initrd.systemd.emergencyAccess" true)
  ])
  (warns "`boot.crashDump.enable`" "its kernel would start NixOS' own stage 1, which does not find the store in memory" [
    (set "boot.crashDump.enable" true)
  ])
  (warns "any other option of `boot.initrd`, also of a newer nixpkgs"
    "such as `systemd.extraConfig`, `managerEnvironment`, `users`, `dbus`, `tpm2`: no effect on firn's stage 1"
    [
      (set "boot.initrd.systemd.extraConfig" "DefaultTimeoutStartSec=1s")
      (set "boot.initrd.systemd.managerEnvironment" { A = "1"; })
      (set "boot.initrd.systemd.users" {
        mine = {
          uid = 1000;
          group = "mine";
        };
      })
      (set "boot.initrd.systemd.suppressedUnits" [ "x.service" ])
    ]
  )
  (refused "`nix.optimise.automatic`"
    "[linking the files of the image saves nothing](living.md#optimising-the-store). `nix.settings.auto-optimise-store` is of use"
    [ (set "nix.optimise.automatic" true) ]
  )
]
