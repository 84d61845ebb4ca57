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

  # The definitions of an option, except those in nixpkgs itself, and those of nixos-images and nixos-generators, whose work firn's stage 1
  # does (src/boot/files/of_others.rs). A default has the file that declares the option.
  byOthers =
    let
      isKnown =
        file:
        lib.hasPrefix (toString modulesPath) file
        || lib.any (name: lib.hasSuffix name file) [
          "/nix/restore-remote-access.nix"
          "/nix/kexec-installer/module.nix"
          "/formats/kexec.nix"
        ];
    in
    path:
    lib.filter (definition: !isKnown (toString definition.file)) (
      (lib.attrByPath path { } options).definitionsWithLocations or [ ]
    );

  # Whether anybody but nixpkgs itself says something with this option. A definition can have conditions in it, and `enable = false`
  # says nothing.
  isSetByOthers =
    path:
    let
      says =
        value:
        if value._type or "" == "if" then
          value.condition && says value.content
        else if value._type or "" == "merge" then
          lib.any says value.contents
        else if value ? _type && value ? content then
          says value.content
        else if builtins.isAttrs value && !(value ? outPath) then
          lib.any says (lib.attrValues value)
        else
          !lib.elem value [
            ""
            [ ]
            false
            null
          ];
    in
    lib.any (definition: says definition.value) (byOthers path);

  # Whether this is the virtual machine of `nixos-rebuild build-vm`: nixpkgs' qemu-vm.nix declares this option. The machine boots
  # with NixOS' own stage 1, which mounts and registers the store of its host.
  isVm = lib.isOption (lib.attrByPath [ "virtualisation" "useDefaultFilesystems" ] null options);
}
