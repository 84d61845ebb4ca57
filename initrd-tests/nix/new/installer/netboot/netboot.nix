# Stands for nixpkgs' own module at this path. It conflicts with firn's module: both declare this option.
{ lib, ... }:

{
  options.netboot.storeContents = lib.mkOption { };
}
