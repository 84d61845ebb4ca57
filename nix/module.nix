# Replaces nixpkgs' installer/netboot/netboot.nix: the same options and outputs, but stage 1 is firn-init.
#
# The toplevel depends on the options here that become kernel parameters, the store image on the toplevel, the build on both. The
# toplevel must not depend on firn or on an output: that would be an infinite recursion.
{
  imports = [
    ./module/options.nix
    ./module/boot.nix
    ./module/kernel.nix
    ./module/mounts.nix
    ./module/running-system.nix
    ./module/refusals.nix
    ./module/warnings.nix
    ./module/outputs.nix
    ./module/image.nix
  ];

  # Even if another module, such as netboot-minimal.nix, imports it.
  disabledModules = [ "installer/netboot/netboot.nix" ];
}
