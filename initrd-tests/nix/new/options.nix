# What a NixOS of 2026 has beside the others: an /etc that is an overlay, and no scripted stage 1 any more.
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
    # On wherever systemd is in stage 1, which is the default.
    boot.initrd.services.lvm.enable = flag true;
    # As mkRemovedOptionModule declares it.
    boot.initrd.postMountCommands = mkOption {
      visible = false;
      apply = _: throw "boot.initrd.postMountCommands has been removed";
    };
  };
}
