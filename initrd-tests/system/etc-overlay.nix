# An /etc as two store paths for an overlay, as nixpkgs' nixos/modules/system/etc/etc.nix makes them: an erofs image with all names,
# modes and owners, and a directory with the contents of the regular files.
{ run, etc }:

rec {
  basedir = run "etc-lowerdir" { } ''
    mkdir $out
    echo "root:x:0:0:root:/root:/bin/sh" > $out/passwd
    echo "root:x:0:" > $out/group
    echo "root::1::::::" > $out/shadow
  '';

  # Links lead into the store. A regular file has its size, and extended attributes of overlayfs with the path of its contents.
  metadata = run "etc-metadata.erofs" { inherit basedir etc; } ''
    mkdir root
    for file in $etc/etc/*; do ln -s $file root; done
    for file in $basedir/*; do
      name=''${file##*/}
      truncate --size $(stat --format %s $file) root/$name
      setfattr --name trusted.overlay.metacopy root/$name
      setfattr --name trusted.overlay.redirect --value /$name root/$name
    done
    chmod 600 root/shadow
    mkfs.erofs --quiet -T1 -U00000000-0000-0000-0000-000000000000 --all-root $out root
  '';
}
