# The options that the module refuses, and the ones that it accepts.
{
  complaints,
  config,
  everything,
  lib,
  old,
  ...
}:

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
  "a configuration that sets nothing is accepted" = {
    actual = map (config: [ (complaints config) config.warnings ]) [ (config { }) (old { }) ];
    expected = [ [ [ ] [ ] ] [ [ ] [ ] ] ];
  };
  "a configuration that sets everything is accepted" = {
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
  "optimising the store" = {
    actual = [
      (complaints (config { nix.optimise.automatic = true; }))
      (complaints (config { nix.optimise.automatic = false; nix.settings.auto-optimise-store = true; }))
    ];
    expected = [
      [
        "nix.optimise.automatic is set, but linking the files of the store image takes memory and saves none. Set nix.settings.auto-optimise-store: Nix then links the equal files of new store paths."
      ]
      [ ]
    ];
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

  "empty hooks are accepted" = {
    actual = complaints (old { boot.initrd.postMountCommands = ""; });
    expected = [ ];
  };
  "a disk that stage 1 would have to mount" = {
    actual = complainsOf (config {
      fileSystems."/nix/persist" = {
        device = "/dev/vda";
        neededForBoot = true;
      };
      fileSystems."/data".device = "/dev/vdb";
    }) "fileSystems.\"/nix/persist\".neededForBoot" "boot.persistence";
    expected = true;
  };

  "a disk for files that activation writes" = {
    actual = complainsOf (config {
      fileSystems."/var".device = "/dev/vda";
      fileSystems."/var/log".device = "/dev/vdb";
    }) "fileSystems.\"/var\"" "boot.persistence";
    expected = true;
  };
  # nixpkgs' qemu-vm.nix, as with nixos-rebuild build-vm.
  "the virtual machine of build-vm stays as it is" = {
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
