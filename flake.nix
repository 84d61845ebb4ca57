{
  description = "Boots NixOS entirely from memory: a builder for kernel, ramdisk and scripts, and a static init for stage 1";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      forSystems =
        of:
        nixpkgs.lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: of nixpkgs.legacyPackages.${system});
    in
    {
      packages = forSystems (pkgs: rec {
        firn = pkgs.callPackage ./nix/package.nix { };
        inherit (firn) firn-init;
        default = firn;
      });

      overlays.default = final: _: { firn = final.callPackage ./nix/package.nix { }; };

      nixosModules = {
        # The module with the packages of this flake, independent of the nixpkgs that the system uses.
        netboot =
          { lib, pkgs, ... }:
          let
            of = platform: self.packages.${platform.system};
          in
          {
            # With a key, the module system loads the module once, even if it is imported several times.
            key = "firn#nixosModules.netboot";
            imports = [ ./nix/module.nix ];
            netboot.firn.package = lib.mkDefault (of pkgs.stdenv.buildPlatform).firn;
            netboot.firn.init = lib.mkDefault "${(of pkgs.stdenv.hostPlatform).firn-init}/bin/firn-init";
          };
        default = self.nixosModules.netboot;
      };

      checks = forSystems (
        pkgs:
        {
          inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) firn firn-init;
        }
        // nixpkgs.lib.optionalAttrs pkgs.stdenv.hostPlatform.isx86_64 (
          import ./nix/tests/netboot.nix {
            inherit pkgs;
            module = self.nixosModules.netboot;
          }
        )
      );

      devShells = forSystems (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.firn ];
          packages = with pkgs; [
            clippy
            erofs-utils
            rustfmt
            squashfsTools
          ];
          # .cargo/config.toml links statically.
          buildInputs = [ pkgs.glibc.static ];
        };
      });
    };
}
