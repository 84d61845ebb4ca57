# The additional options of NixOS 23.11: a scripted stage 1 with hooks.
{ lib, ... }:

let
  lines = lib.mkOption {
    type = lib.types.lines;
    default = "";
  };
in
{
  # NixOS defines this hook itself.
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
      postResumeCommands = lines;
      postMountCommands = lines;
      preFailCommands = lines;
    };
  };
}
