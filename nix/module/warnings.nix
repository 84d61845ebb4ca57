# Warnings: options that have no effect on firn's stage 1, and whose absence loses nothing.
{
  lib,
  modulesPath,
  options,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; })
    isSetByOthers
    isVm
    optionValue
    ;

  # The options of boot.initrd that firn honours, that it does not need, or that ./refusals.nix and ./mounts.nix know. A name stands for
  # everything below it.
  known = map (lib.splitString ".") [
    "allowMissingModules"
    "availableKernelModules"
    "checkJournalingFS"
    "clevis"
    "compressor"
    "compressorArgs"
    "enable"
    "extraFiles"
    "extraUdevRulesCommands"
    "extraUtilsCommands"
    "extraUtilsCommandsTest"
    "includeDefaultModules"
    "kernelModules"
    "luks"
    "network"
    "osRelease"
    "postDeviceCommands"
    "postMountCommands"
    "postResumeCommands"
    "preDeviceCommands"
    "preFailCommands"
    "preLVMCommands"
    "prepend"
    "secrets"
    "services"
    "supportedFilesystems"
    "systemd.automounts"
    "systemd.contents"
    "systemd.dmVerity"
    "systemd.emergencyAccess"
    "systemd.enable"
    "systemd.extraBin"
    "systemd.initrdBin"
    "systemd.mounts"
    "systemd.network"
    "systemd.packages"
    "systemd.paths"
    "systemd.repart"
    "systemd.root"
    "systemd.services"
    "systemd.slices"
    "systemd.sockets"
    "systemd.storePaths"
    "systemd.strip"
    "systemd.targets"
    "systemd.timers"
    "systemd.units"
    "unl0kr"
    "verbose"
  ];

  # The paths below boot.initrd of all other options, of whatever nixpkgs this is. A removed option is invisible, and says so itself.
  unknown =
    let
      leaves =
        path: set:
        if lib.elem path known then
          [ ]
        else if lib.isOption set then
          lib.optional (set.visible or true != false) path
        else
          lib.concatMap (name: leaves (path ++ [ name ]) set.${name}) (lib.attrNames set);
    in
    leaves [ ] options.boot.initrd;

  withoutEffect = map (path: "boot.initrd.${lib.concatStringsSep "." path} has no effect on firn's stage 1.") (
    lib.filter (
      path:
      isSetByOthers (
        [
          "boot"
          "initrd"
        ]
        ++ path
      )
    ) unknown
  );
in
{
  config.warnings = lib.mkIf (!isVm) (
    lib.optional (optionValue [ "boot" "plymouth" "enable" ] false)
      "boot.plymouth.enable is set, and firn's stage 1 shows no splash: the screen is black until the running system starts it. Without quiet in boot.kernelParams it shows the log."
    ++
      lib.optional
        (
          !lib.elem (optionValue [ "boot" "initrd" "systemd" "emergencyAccess" ] false) [
            false
            null
          ]
        )
        "boot.initrd.systemd.emergencyAccess has no effect on firn's stage 1: netboot.firn.rescueShell is its shell."
    ++ lib.optional (isSetByOthers [ "console" "earlySetup" ])
      "console.earlySetup has no effect on firn's stage 1: the running system sets the font and the keyboard of the console."
    ++ lib.optional (optionValue [ "boot" "crashDump" "enable" ] false)
      "boot.crashDump.enable is set, and its kernel would start NixOS' own stage 1, which does not find the store in memory: a crash leaves no dump."
    ++ withoutEffect
  );
}
