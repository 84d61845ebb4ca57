# What this nixpkgs and the configuration have, for the parts of the module.
{
  lib,
  modulesPath,
  options,
}:

rec {
  # Newer nixpkgs name images by options (25.05), which netboot.nix imports.
  imageOptions = modulesPath + "/image/file-options.nix";
  hasImageOptions = builtins.pathExists imageOptions;

  # The value of an option that not every nixpkgs has. One that was removed or renamed is still declared, but invisible, and may
  # throw when it is read.
  optionValue =
    path: default:
    let
      option = lib.attrByPath path null options;
    in
    if lib.isOption option && option.visible or true != false && option.isDefined then
      option.value
    else
      default;

  # Definitions of an option by anybody but nixpkgs itself. Its default counts as where it is declared.
  byOthers =
    path:
    lib.filter (definition: !lib.hasPrefix (toString modulesPath) (toString definition.file)) (
      (lib.attrByPath path { } options).definitionsWithLocations or [ ]
    );

  # The machine that `nixos-rebuild build-vm` makes of a configuration mounts and registers its host's store, in NixOS' own stage 1.
  isVm = lib.isOption (lib.attrByPath [ "virtualisation" "useDefaultFilesystems" ] null options);
}
