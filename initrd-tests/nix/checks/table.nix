# The table of ../table.nix, over the declarations in this directory: the old ones stand for a scripted stage 1, the new ones for systemd's.
{ evaluate, lib, ... }:

let
  rows = import ../table.nix { inherit lib; };
  outcomes =
    kind: generation:
    import ../outcome.nix {
      inherit kind lib rows;
      evaluate = evaluate generation;
    };
  scripted = outcomes "scripted" "old";
  systemd = outcomes "systemd" "new";
  isHere = one: one.outcome != "not in this nixpkgs";
  here = lib.filter isHere (scripted ++ systemd);
in
{
  "d_2_every_option_has_the_effect_of_its_row" = {
    actual = lib.filter (one: one.outcome != "as it should be") here;
    expected = [ ];
  };
  "d_2_every_example_is_of_an_option_that_is_declared" = {
    actual = lib.filter (one: lib.all (other: one.option != other.option) here) scripted;
    expected = [ ];
  };
}
