# nixpkgs has its own module here, which cannot be together with firn's: both declare this.
{ lib, ... }:

{
  options.netboot.storeContents = lib.mkOption { };
}
