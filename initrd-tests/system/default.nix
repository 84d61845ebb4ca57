# The demo system: a toplevel as NixOS makes one, and its closure.
#
# Without nixpkgs: the builders are the bash and the tools of the build machine, and no output refers to them.
{ kernelParams ? [ ] # kernel parameters in addition to the demo's own
, packages # file: list of Debian packages, as ./build writes it
, kernel # directory: a kernel, as qemu/kernel unpacks it
, kind ? "classic" # how it wants to be started: "classic", "prepare-root" or "nixos-init"; "bench" and "bench-small" are classic ones for measuring
, probe ? null # file: a static program
}:

let
  version = "0.1";
  measured = kind == "bench" || kind == "bench-small";
  system = "x86_64-linux";
  allParams = [ "console=tty0" "console=ttyS0,115200n8" "loglevel=4" ] ++ kernelParams;

  # A store path made by a shell script with `env` in its environment. "exit" keeps bash from replacing itself with the last command:
  # Nix kills a builder that closes its output before it exits, and coreutils close it early.
  run = name: env: script: derivation (env // {
    inherit name system;
    builder = "/bin/bash";
    args = [ "-euc" "${script}\nexit" ];
    PATH = "/usr/sbin:/usr/bin:/sbin:/bin";
    LC_ALL = "C";
  });

  debian = import ./debian.nix { inherit run; whole = kind == "bench"; } (builtins.fromJSON (builtins.readFile packages));
  linux = import ./linux.nix { inherit run kernel; };

  # The init of prepare-root and nixos-init is systemd; nixos-init has no script.
  systemd = if kind == "classic" || measured then null else debian.systemd;
  overlay = if kind == "nixos-init" then import ./etc-overlay.nix { inherit run etc; } else null;
  laterOverlay = import ./etc-overlay.nix { inherit run etc; later = true; };

  power = run "power" { inherit (debian) bash; script = ./power.sh; } ''
    mkdir -p $out/bin
    sed "s|@bash@|$bash|" $script > $out/bin/poweroff
    chmod +x $out/bin/poweroff
    ln -s poweroff $out/bin/reboot
  '';

  firn-probe = run "firn-probe" { file = builtins.path { path = probe; name = "firn-probe"; }; } ''
    install -D $file $out/bin/firn-probe
  '';

  sw = run "system-path" {
    parts = with debian; [ bash coreutils findutils grep less mount nix-bin procps sed util-linux power ]
      ++ builtins.filter (part: part != null) [ systemd (if probe == null then null else firn-probe) ];
  } ''
    mkdir -p $out/bin
    for part in $parts; do ln -s $part/bin/* $out/bin/; done
  '';

  etc = run "etc" {
    files = ./etc;
    inherit version;
    terminfo = debian.ncurses-base;
    units = if systemd == null then "" else import ./systemd.nix { inherit run systemd; };
    systemd = if systemd == null then "" else systemd;
    tmpfiles = ./tmpfiles.conf;
    fstab = ./fstab;
  } ''
    mkdir -p $out/etc
    cp -r $files $out/files
    chmod -R u+w $out/files
    sed -i "s|@version@|$version|g" $out/files/os-release
    ln -s $terminfo/lib/terminfo $out/etc/terminfo
    ln -s /proc/mounts $out/etc/mtab
    if [[ $units ]]; then
      mkdir $out/etc/systemd $out/etc/systemd/system-generators $out/etc/tmpfiles.d
      ln -s $systemd/lib/systemd/system-generators/systemd-fstab-generator $out/etc/systemd/system-generators
      cp $fstab $out/etc/fstab
      ln -s $units $out/etc/systemd/system
      sed "s|@systemd@|$systemd|" $tmpfiles > $out/demo.conf
      ln -s $out/demo.conf $out/etc/tmpfiles.d
      # As networking.hostId = "12345678" makes it.
      printf '\x78\x56\x34\x12' > $out/files/hostid
    fi
    # As in NixOS, the files are links. /etc/nix is a link to a directory, as environment.etc makes it of one.
    ln -s $out/files/* $out/etc
  '';

  # Not used, because firn makes its own ramdisk; but every toplevel has one.
  initrd = run "initrd-linux-${linux.release}" { } ''
    mkdir $out root
    touch -d @0 root
    cd root
    echo . | cpio --quiet --create --format=newc --reproducible --owner=0:0 > $out/initrd
  '';

  # No firmware, but its name is one that a module asks for.
  firmware = run "firmware" { } ''
    mkdir -p $out/lib/firmware
    echo "not signed" > $out/lib/firmware/regulatory.db
  '';

  # The files that a start of the bench's system reads: 400 files, 60 MB; fewer in the small system.
  bench = run "bench" { inherit kind; packages = builtins.attrValues debian; } ''
    mkdir $out
    printf '%s\n' $packages > $out/packages
    # pick COUNT MIN MAX: files of a size in between, evenly out of all there are
    pick() {
      find $packages -type f -size +$2c -size -$3c | LC_ALL=C sort > all
      awk -v wanted=$1 -v all=$(wc -l < all) 'int(NR * wanted / all) > int((NR - 1) * wanted / all)' all
    }
    { pick 200 4000 32000; pick 150 64000 256000; pick 50 500000 1200000; } > $out/start
    [[ $kind != bench || $(wc -l < $out/start) == 400 ]]
  '';
in
run "nixos-system-firn-demo-${version}" {
  inherit (debian) bash coreutils;
  inherit kind system version etc sw initrd firmware;
  inherit (linux) image modules;
  kernelParams = toString allParams;
  # Only the programs that both scripts need: they run before there is a /run/current-system.
  path = with debian; map (p: "${p}/bin") ([ bash coreutils mount util-linux power ] ++ (if measured then [ nix-bin ] else [ ]));
  stage2 = ./stage-2.sh;
  activate = ./activate.sh;
  bench = if measured then bench else "";
  benchInit = ./bench.sh;
  systemd = if systemd == null then "" else systemd;
  probe = if systemd == null || probe == null then "" else firn-probe;
  fromOverlay = if overlay == null then [ ] else [ overlay.metadata overlay.basedir ];
  toOverlay = if overlay == null then [ ] else [ laterOverlay.metadata laterOverlay.basedir ];
  bootspec =
    let out = builtins.placeholder "out"; in
    builtins.toJSON {
      "org.nixos.bootspec.v1" = {
        inherit system;
        kernelParams = allParams;
        init = "${out}/init";
        initrd = "${initrd}/initrd";
        kernel = "${linux.image}/bzImage";
        label = "firn demo ${version} (Linux ${linux.release})";
        toplevel = out;
      };
      "org.nixos.specialisation.v1" = { };
      # NixOS writes this for every kind of system.
      "org.nixos.nixos-init.v1" = {
        nix_store_mount_opts = [ "ro" "nodev" "nosuid" ];
        # Neither of the two exists; the tests only read the kernel's settings.
        firmware = "${sw}/lib/firmware";
        modprobe_binary = "${sw}/bin/modprobe";
        sh_binary = "${debian.bash}/bin/sh";
        env_binary = "${debian.coreutils}/bin/env";
        special_filesystems = [ ];
      } // (if overlay == null then { } else { etc_metadata_image = overlay.metadata; etc_basedir = overlay.basedir; });
    };
} ''
  mkdir $out
  script() {
    sed -e "s|@bash@|$bash|" -e "s|@coreutils@|$coreutils|" -e "s|@path@|''${path// /:}|" -e "s|@toplevel@|$out|" \
      -e "s|@bench@|$bench|" $1 > $out/$2
    chmod +x $out/$2
  }
  # The same once more, with the probe for an init: it has done in seconds what systemd takes a minute for.
  with_probe() {
    [[ $probe ]] || return 0
    mkdir $out/probe
    cp $probe/bin/firn-probe $out/probe/init
    for name in boot.json nixos-version sw "$@"; do ln -s ../$name $out/probe; done
  }
  case $kind in
    classic)
      script $stage2 init
      script $activate activate
      ;;
    bench | bench-small) script $benchInit init ;;
    prepare-root)
      script $stage2 prepare-root
      script $activate activate
      with_probe prepare-root etc
      ;;
    nixos-init)
      with_probe
      # As NixOS 24.11 to 25.11 have them, with prepare-root.
      cp -r $out/probe $out/linked
      rm $out/linked/boot.json
      echo '{}' > $out/linked/boot.json
      ln -s ''${fromOverlay%% *} $out/linked/etc-metadata-image
      ln -s ''${fromOverlay##* } $out/linked/etc-basedir
      printf '#!%s/bin/bash\n%s/bin/ln -s %s /run/current-system\n' $bash $coreutils $out/linked > $out/linked/prepare-root
      chmod +x $out/linked/prepare-root
      # The same with a later /etc.
      cp -r $out/probe $out/later
      from=($fromOverlay) to=($toOverlay)
      rm $out/later/boot.json
      printf %s "$bootspec" | sed "s|''${from[0]}|''${to[0]}|; s|''${from[1]}|''${to[1]}|" > $out/later/boot.json
      ;;
  esac
  [[ ! $systemd ]] || cp $systemd/lib/systemd/systemd $out/init
  ln -s $etc/etc $out/etc
  ln -s $sw $out/sw
  ln -s $firmware/lib/firmware $out/firmware
  ln -s $image/bzImage $out/kernel
  ln -s $modules $out/kernel-modules
  ln -s $initrd/initrd $out/initrd
  printf %s "$kernelParams" > $out/kernel-params
  printf %s "$version" > $out/nixos-version
  printf %s "$system" > $out/system
  printf %s "$bootspec" > $out/boot.json
''
