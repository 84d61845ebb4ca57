# The image of newer nixpkgs (25.05), which have options for its name.
{
  config,
  lib,
  modulesPath,
  options,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; }) hasImageOptions imageOptions;
in
{
  imports = lib.optional hasImageOptions imageOptions;

  config = lib.optionalAttrs hasImageOptions {
    image.extension = "tar.zst";
    image.filePath = "tarball/${config.image.fileName}";
    system.nixos.tags = [ "kexec" ];
    system.build.image = config.system.build.kexecTarball;
  };
}
