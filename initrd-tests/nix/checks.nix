# Evaluates nix/module.nix with many configurations and lists the checks that fail. Nothing is built.
{
  lib ? import ./lib.nix,
}:

let
  setup = import ./checks/setup.nix { inherit lib; };
  parts = map (part: import part setup) [
    ./checks/configuration.nix
    ./checks/outputs.nix
    ./checks/refusals.nix
    ./checks/table.nix
  ];
  checks = lib.concatMap (part: map (name: { inherit name; } // part.${name}) (builtins.attrNames part)) parts;
in
{
  wrong = lib.filter (check: check.actual != check.expected) checks;
  count = builtins.length checks;
  names = map (check: check.name) checks;
  table = import ./table-text.nix { inherit lib; };
  password = (setup.config { }).systemd.services.live-password.script;
}
