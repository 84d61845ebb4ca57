# Differences between versions of nixpkgs, and what a configuration says about them. The parts of the module import this file.
{
  lib,
  modulesPath,
  options,
}:

rec {
  # nixpkgs 25.05 and newer have options for the names of images. Its netboot.nix imports them.
  imageOptions = modulesPath + "/image/file-options.nix";
  hasImageOptions = builtins.pathExists imageOptions;

  # The value of an option that not every nixpkgs has. A removed or renamed option is still declared (nixpkgs' lib/modules.nix,
  # mkRemovedOptionModule), but it is invisible, and reading it may throw.
  optionValue =
    path: default:
    let
      option = lib.attrByPath path null options;
    in
    if lib.isOption option && option.visible or true != false && option.isDefined then
      option.value
    else
      default;

  # The definitions of an option, except those in nixpkgs itself. A default has the file that declares the option.
  byOthers =
    path:
    lib.filter (definition: !lib.hasPrefix (toString modulesPath) (toString definition.file)) (
      (lib.attrByPath path { } options).definitionsWithLocations or [ ]
    );

  # Whether this is the virtual machine of `nixos-rebuild build-vm`: nixpkgs' qemu-vm.nix declares this option. The machine boots
  # with NixOS' own stage 1, which mounts and registers the store of its host.
  isVm = lib.isOption (lib.attrByPath [ "virtualisation" "useDefaultFilesystems" ] null options);
}
