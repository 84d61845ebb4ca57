# The additional options of NixOS in 2026: /etc can be an overlay, and there is no scripted stage 1.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  flag =
    default:
    mkOption {
      type = types.bool;
      inherit default;
    };
in
{
  options = {
    system.etc.overlay = {
      enable = flag false;
      mutable = flag true;
    };
    systemd.sysusers.enable = flag false;
    boot.initrd.allowMissingModules = flag false;
    # Enabled by default if stage 1 is systemd's, which is the default.
    boot.initrd.services.lvm.enable = flag true;
    # As mkRemovedOptionModule declares it.
    boot.initrd.postMountCommands = mkOption {
      visible = false;
      apply = _: throw "boot.initrd.postMountCommands has been removed";
    };
  };
}
