# What NixOS 23.11 has beside the others: a scripted stage 1 with hooks.
{ lib, ... }:

let
  lines = lib.mkOption {
    type = lib.types.lines;
    default = "";
  };
in
{
  # Its own, by default.
  config.boot.initrd.preLVMCommands = "loadkmap";

  options.boot = {
    postBootCommands = lines;
    initrd = {
      services.lvm.enable = lib.mkOption {
        type = lib.types.bool;
        default = false;
      };
      preDeviceCommands = lines;
      preLVMCommands = lines;
      postDeviceCommands = lines;
      postMountCommands = lines;
      preFailCommands = lines;
    };
  };
}
