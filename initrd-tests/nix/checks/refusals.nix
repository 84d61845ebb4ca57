# The options that the module refuses, and the ones that it accepts.
{
  complaints,
  config,
  everything,
  lib,
  old,
  onKernel,
  ...
}:

let
  # A word of so many bytes.
  of = bytes: builtins.substring 0 bytes "a=${builtins.concatStringsSep "" (builtins.genList (_: "x") bytes)}";
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
  "a kernel that is too old" = {
    actual = map (version: complaints (config { imports = [ (onKernel version) ]; })) [ "5.4.300" "5.6" ];
    expected = [
      [ "The kernel of boot.kernelPackages (of an unknown version) is too old: firn's stage 1 needs Linux 5.6 or newer. Use a newer one." ]
      [ ]
    ];
  };
  "a kernel that is too old for an overlay for /etc" = {
    actual = map (version: builtins.length (complaints (config {
      imports = [ (onKernel version) ];
      system.etc.overlay.enable = true;
    }))) [ "5.4" "5.10.223" "5.15" ];
    expected = [ 2 1 0 ];
  };
  # The line of the module has 112 bytes, with the space behind it.
  "a command line that the kernel would cut" = {
    actual = map (
      set:
      map (bytes: builtins.length (complaints (config (set (of bytes))))) [ (2047 - 128 - 112) (2048 - 128 - 112) (2047 - 112) (2048 - 112) ]
    ) [
      (word: { boot.kernelParams = [ word ]; })
      (word: { netboot.firn.uki.append = word; })
    ];
    expected = [
      [ 0 1 1 1 ]
      [ 0 0 0 1 ]
    ];
  };
  "a parameter that the kernel would cut" = {
    actual = complaints (config { boot.kernelParams = [ (of 2100) ]; netboot.firn.uki.append = "quiet"; });
    expected = [
      "boot.kernelParams make a kernel command line of 2212 bytes, and the kernel reads only 2047, of which boot loaders need up to 128 for words of their own. Remove kernel parameters."
      "boot.kernelParams and netboot.firn.uki.append make a kernel command line of 2218 bytes, and the kernel reads only 2047. Remove kernel parameters."
    ];
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
  "d_2_what_others_add_to_nixos_stage_1" = {
    actual =
      map (set: let it = config { boot = set; }; in [ (builtins.length (complaints it)) (builtins.length it.warnings) ])
        [
          { initrd.systemd.services.mine.script = "true"; }
          { initrd.extraFiles."/file".source = "/file"; }
          { initrd.services.udev.rules = "x"; }
          { initrd.extraUtilsCommands = "x"; }
          { plymouth.enable = true; }
          { initrd.systemd.emergencyAccess = true; }
          # These say nothing.
          { initrd.systemd.services.mine.enable = false; }
          { initrd.systemd.services.mine = lib.mkIf false { script = "true"; }; }
          { initrd.extraUtilsCommands = ""; }
        ];
    expected = [
      [ 1 0 ]
      [ 1 0 ]
      [ 1 0 ]
      [ 1 0 ]
      [ 0 1 ]
      [ 0 1 ]
      [ 0 0 ]
      [ 0 0 ]
      [ 0 0 ]
    ];
  };
  "d_2_mounts_that_would_lose_what_is_written" = {
    actual =
      map (set: map (text: builtins.head (builtins.match "(.*) is set, but .*" text)) (complaints (config set)))
        [
          { fileSystems."/" = lib.mkForce { device = "/dev/vda"; fsType = "ext4"; }; }
          { fileSystems."/nix/store" = lib.mkForce { device = "/dev/vda"; fsType = "ext4"; }; }
          { fileSystems."/nix/store" = lib.mkForce { fsType = "overlay"; options = [ "lowerdir=/nix/.ro-store:/other" ]; }; }
          { fileSystems."/nix/.ro-store" = lib.mkForce { device = "/dev/vda"; fsType = "squashfs"; }; }
          { fileSystems."/nix/store".options = [ "lowerdir=/nix/.ro-store:/other" ]; }
          { fileSystems."/nix/.ro-store" = { device = "/dev/vda"; fsType = "ext4"; }; }
          { fileSystems."/nix/.rw-store".device = "/dev/vda"; }
          { fileSystems."/nix/.rw-store".fsType = lib.mkForce "ext4"; }
          { fileSystems."/nix/.rw-store".options = [ "noexec" ]; }
          { fileSystems."/data" = { device = "/dev/vda"; encrypted.enable = true; }; }
          { swapDevices = [ { device = "/dev/vda"; encrypted.enable = true; } ]; }
          { boot.resumeDevice = "/dev/vda"; }
          # These lose nothing.
          { fileSystems."/" = lib.mkForce { device = "none"; fsType = "tmpfs"; options = [ "size=2G" ]; }; }
          { fileSystems."/nix/.rw-store".options = [ "defaults" "size=90%" "x-initrd.mount" ]; }
          { fileSystems."/data".device = "/dev/vda"; swapDevices = [ { device = "/dev/vdb"; } ]; }
        ];
    expected = [
      [ "fileSystems.\"/\"" ]
      [ "fileSystems.\"/nix/store\"" ]
      [ "fileSystems.\"/nix/store\"" ]
      [ "fileSystems.\"/nix/.ro-store\"" ]
      [ "fileSystems.\"/nix/store\"" ]
      [ "fileSystems.\"/nix/.ro-store\"" ]
      [ "fileSystems.\"/nix/.rw-store\"" ]
      [ "fileSystems.\"/nix/.rw-store\"" ]
      [ "fileSystems.\"/nix/.rw-store\"" ]
      [ "fileSystems.\"/data\".encrypted" ]
      [ "swapDevices.*.encrypted" ]
      [ "boot.resumeDevice" ]
      [ ]
      [ ]
      [ ]
    ];
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
        };
      in
      complaints vm;
    expected = [ ];
  };
}
