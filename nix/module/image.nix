# system.build.image and the options for its name, which nixpkgs 25.05 and newer have.
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
    # nixos-generators' kexec format has one of its own.
    system.build.image = lib.mkDefault config.system.build.kexecTarball;
  };
}
