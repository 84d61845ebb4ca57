# Evaluates a configuration of nix/module.nix and the given modules, with the option declarations in this directory.
{
  lib ? import ./lib.nix,
  pkgs,
  generation ? "new", # of nixpkgs: "old" (23.11) or "new" (2026)
  modules,
}:

lib.evalModules {
  modules = [
    ./options.nix
    (./. + "/${generation}/options.nix")
    ../../nix/module.nix
  ]
  ++ modules;
  specialArgs = {
    inherit pkgs;
    modulesPath = ./. + "/${generation}";
  };
}
