# The table of docs/nixos.md, from ./table.nix.
{ lib }:

lib.concatStringsSep "\n" (
  [
    "| option | scripted | systemd | |"
    "| --- | --- | --- | --- |"
  ]
  ++ map (row: "| ${row.options} | ${row.scripted} | ${row.systemd} |${lib.optionalString (row.text != "") " ${row.text}"} |") (
    import ./table.nix { inherit lib; }
  )
)
