# An /etc as two store paths for an overlay, as nixpkgs' nixos/modules/system/etc/etc.nix makes them: an erofs image with all names,
# modes and owners, and a directory with the contents of the regular files. `later`: that of a later system, with other files.
{ run, etc, later ? false }:

rec {
  # The directory `contents` is not in the image, so no name in it may be seen. mkcomposefs has no such directory, but could.
  basedir = run "etc-lowerdir" { generation = if later then "later" else "first"; } ''
    mkdir $out $out/changes.d $out/returns.d $out/contents
    echo "root:x:0:0:root:/root:/bin/sh" > $out/passwd
    echo "root:x:0:" > $out/group
    echo "root::1::::::" > $out/shadow
    for name in edited deleted contents/elsewhere returns.d/file; do echo "of the system" > $out/$name; done
    echo $generation > $out/changes.d/changed
    case $generation in
      first) echo first > $out/changes.d/first ;;
      later)
        mkdir $out/made.d
        echo later > $out/made.d/later
        echo later > $out/returns.d/later
        ;;
    esac
  '';

  # Links lead into the store. A regular file has its size, and extended attributes of overlayfs with the path of its contents. As
  # mkcomposefs does it, the image itself is opaque, and has whiteouts for the directories of other contents.
  metadata = run "etc-metadata.erofs" { inherit basedir etc; } ''
    mkdir root
    for file in $etc/etc/*; do ln -s $file root; done
    metacopy() {
      mkdir -p root/$(dirname $1)
      truncate --size $(stat --format %s $basedir/$2) root/$1
      setfattr --name trusted.overlay.metacopy root/$1
      setfattr --name trusted.overlay.redirect --value /$2 root/$1
    }
    cd $basedir
    files=$(find . -type f -not -path './contents/*' -printf '%P\n')
    cd - > /dev/null
    for file in $files; do metacopy $file $file; done
    metacopy elsewhere contents/elsewhere
    touch root/empty
    chmod 600 root/shadow root/changes.d/changed
    chmod 750 root/changes.d
    setfattr --name trusted.overlay.opaque --value y root
    for name in 00 ff; do mknod root/$name c 0 0; done
    mkfs.erofs --quiet -T1 -U00000000-0000-0000-0000-000000000000 --all-root $out root
  '';
}
