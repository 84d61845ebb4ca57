# Evaluates the examples of ./table.nix, and compares what is said about them with what their row says.
{
  lib,
  rows, # of ./table.nix
  kind, # of stage 1: "scripted" or "systemd"
  evaluate, # a function of a module: `config` and `options`
}:

let
  base = evaluate { };
  said = config: map (one: one.message) (lib.filter (one: !one.assertion) config.assertions) ++ config.warnings;
  before = said base.config;

  # An option that this nixpkgs does not have, or has removed, shows nothing.
  isHere =
    path:
    let
      found = lib.attrByPath path null base.options;
    in
    if lib.isOption found then found.visible or true != false else found != null && path != [ ];

  # An array of an example's name and "as it should be", "not in this nixpkgs" or what is wrong.
  outcome =
    expected: { option, value, shows, also }:
    let
      path = lib.splitString "." option;
      result = evaluate {
        imports = [
          (lib.setAttrByPath path value)
          also
        ];
      };
      messages = lib.filter (message: !lib.elem message before) (said result.config);
      refusals = lib.filter (message: lib.hasInfix " is set, but " message) messages;
    in
    if !isHere path then
      "not in this nixpkgs"
    else if expected == "refused" then
      if refusals != [ ] && result.config.warnings == base.config.warnings then
        "as it should be"
      else
        "not refused: ${toString messages}"
    else if expected == "warning" then
      if builtins.length messages == 1 && builtins.length result.config.warnings == builtins.length base.config.warnings + 1 then
        "as it should be"
      else
        "no single warning: ${toString messages}"
    else if expected == "NixOS refuses" then
      if messages != [ ] then "as it should be" else "NixOS does not refuse it"
    else if messages != [ ] then
      "a message: ${toString messages}"
    else if shows result.config then
      "as it should be"
    else
      "no effect";
in
lib.concatMap (
  row:
  map (example: {
    inherit (example) option;
    expected = row.${kind};
    outcome = outcome row.${kind} example;
  }) row.examples
) rows
