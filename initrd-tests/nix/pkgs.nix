# The parts of nixpkgs' packages that nix/module.nix needs, made with the tools of this machine.
let
  run =
    name: attributes: script:
    derivation (
      {
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/bash";
        args = [
          "-euc"
          # "exit" keeps bash from replacing itself with the last command. Nix kills a builder that closes its output before it
          # exits, and coreutils close it early.
          "${script}\nexit"
        ];
        # The checks read the script here, as in nixpkgs.
        buildCommand = script;
        PATH = builtins.concatStringsSep ":" (
          map (package: "${package}/bin") (attributes.nativeBuildInputs or [ ])
          ++ [
            "/usr/sbin"
            "/usr/bin"
            "/sbin"
            "/bin"
          ]
        );
        LC_ALL = "C";
      }
      // attributes
    );
in
{
  runCommand = run;

  stdenv.hostPlatform = {
    system = "x86_64-linux";
    efiArch = "x64";
  };

  closureInfo =
    { rootPaths }:
    derivation {
      name = "closure-info";
      system = "x86_64-linux";
      __structuredAttrs = true;
      exportReferencesGraph.closure = rootPaths;
      builder = "/usr/bin/python3";
      args = [
        "-c"
        ''
          import json, os
          attributes = json.load(open(os.environ["NIX_ATTRS_JSON_FILE"]))
          out = attributes["outputs"]["out"]
          os.mkdir(out)
          with open(out + "/registration", "w") as registration, open(out + "/store-paths", "w") as paths:
              for path in attributes["closure"]:
                  print(path["path"], file=paths)
                  numbers = [path["narHash"], path["narSize"], "", len(path["references"])]
                  print(path["path"], *numbers, *path["references"], sep="\n", file=registration)
        ''
      ];
    };

  # A placeholder: the demo system has its own.
  shadow = "/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-shadow";
}
