# Without flakes: `imports = [ (import ./firn { }).module ];` and `nix-build ./firn -A firn`.
{
  pkgs ? import <nixpkgs> { },
}:

rec {
  firn = pkgs.callPackage ./nix/package.nix { };
  inherit (firn) firn-init;

  # Replaces nixpkgs' installer/netboot/netboot.nix.
  module = ./nix/module.nix;

  overlay = final: _: { firn = final.callPackage ./nix/package.nix { }; };

  tests = import ./nix/tests/netboot.nix { inherit module pkgs; };
}
