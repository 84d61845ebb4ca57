# In the place of nixpkgs' installer/netboot/netboot.nix: the same options and outputs, with firn-init for stage 1.
#
# What depends on what: the toplevel on the options here that become kernel parameters; the store image on the toplevel; the build
# on both. Nothing leads back.
{
  imports = [
    ./module/options.nix
    ./module/boot.nix
    ./module/running-system.nix
    ./module/refusals.nix
    ./module/outputs.nix
    ./module/image.nix
  ];

  # Also where netboot-minimal.nix and others import it.
  disabledModules = [ "installer/netboot/netboot.nix" ];
}
