# As much of nixpkgs' packages as nix/module.nix takes, made of this machine's own tools.
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
          # Not the last command in place of the shell: Nix kills what still runs when the output is closed, which coreutils do early.
          "${script}\nexit"
        ];
        # As in nixpkgs, where it can be looked at.
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

  # Only for the running system, which takes its own.
  shadow = "/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-shadow";
}
