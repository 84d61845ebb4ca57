# nixpkgs 25.05 and newer declare these options in this file.
{ config, lib, ... }:

let
  inherit (lib) mkOption types;
in
{
  options.image = {
    baseName = mkOption {
      type = types.str;
      default = "nixos-image-${config.system.nixos.label}-x86_64-linux";
    };
    extension = mkOption { type = types.str; };
    fileName = mkOption {
      type = types.str;
      default = "${config.image.baseName}.${config.image.extension}";
    };
    filePath = mkOption {
      type = types.str;
      default = config.image.fileName;
    };
  };
}
