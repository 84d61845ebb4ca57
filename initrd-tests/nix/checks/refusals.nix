# What the module refuses, and what it does not.
{ complaints, config, everything, lib, old, ... }:

let
  complainsOf =
    config: name: advice:
    let
      said = complaints config;
    in
    builtins.length said == 1
    && builtins.match "${name} is set, .*${advice}.*" (builtins.head said) != null;
in
{
  "nothing is wrong with a configuration that sets nothing" = {
    actual = map (config: [ (complaints config) config.warnings ]) [ (config { }) (old { }) ];
    expected = [ [ [ ] [ ] ] [ [ ] [ ] ] ];
  };
  "nothing is wrong with one that sets everything" = {
    actual = complaints (config everything);
    expected = [ ];
  };
  "LUKS" = {
    actual = complainsOf (config { boot.initrd.luks.devices.root.device = "/dev/vda"; }) "boot.initrd.luks.devices" "crypttab";
    expected = true;
  };
  "LVM" = {
    actual = complainsOf (config { boot.initrd.services.lvm.enable = true; }) "boot.initrd.services.lvm.enable" "services.lvm.enable";
    expected = true;
  };
  "network" = {
    actual = complainsOf (config { boot.initrd.network.enable = true; }) "boot.initrd.network.enable" "networking";
    expected = true;
  };
  "secrets" = {
    actual = complainsOf (config { boot.initrd.secrets."/key" = "/key"; }) "boot.initrd.secrets" "/firn/root";
    expected = true;
  };
  "hooks" = {
    actual = map (name: complainsOf (old { boot.initrd.${name} = "echo"; }) "boot.initrd.${name}" "systemd service") [
      "preDeviceCommands"
      "preLVMCommands"
      "postDeviceCommands"
      "postMountCommands"
      "preFailCommands"
    ];
    expected = builtins.genList (_: true) 5;
  };

  "hooks that do nothing" = {
    actual = complaints (old { boot.initrd.postMountCommands = ""; });
    expected = [ ];
  };
  "a disk of stage 1" = {
    actual = complainsOf (config {
      fileSystems."/nix/persist" = {
        device = "/dev/vda";
        neededForBoot = true;
      };
      fileSystems."/data".device = "/dev/vdb";
    }) "fileSystems.\"/nix/persist\".neededForBoot" "boot.persistence";
    expected = true;
  };

  "a disk for what activation writes" = {
    actual = complainsOf (config {
      fileSystems."/var".device = "/dev/vda";
      fileSystems."/var/log".device = "/dev/vdb";
    }) "fileSystems.\"/var\"" "boot.persistence";
    expected = true;
  };
  # nixos-rebuild build-vm: nixpkgs' qemu-vm.nix.
  "a virtual machine of the configuration" = {
    actual =
      let
        vm = config {
          imports = [
            {
              options.virtualisation.useDefaultFilesystems = lib.mkOption {
                type = lib.types.bool;
                default = true;
              };
            }
          ];
          fileSystems."/tmp/shared" = {
            fsType = "9p";
            neededForBoot = true;
          };
          systemd.services.register-nix-paths.script = "nix-store --load-db";
        };
      in
      [
        (complaints vm)
        vm.systemd.services.register-nix-paths
      ];
    expected = [
      [ ]
      { script = "nix-store --load-db"; }
    ];
  };
}
