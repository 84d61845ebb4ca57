# Debian packages as Nix packages: an attribute set of store paths, by name.
{ run
, whole ? false # also what they share, and what is not for this system to run: to have many paths and much in them
}: list:

let
  byName = builtins.listToAttrs (map (p: { inherit (p) name; value = p; }) list);

  # The words in "libc6 (>= 2.36), default-foo | foo" that name one of the packages. glibc and libgcc depend on each other; glibc loads
  # libgcc only when a thread is cancelled, and by then every C++ program has loaded it.
  wanted = name:
    if name == "libc6" then [ ]
    else builtins.filter (word: builtins.isString word && byName ? ${word}) (builtins.split "[ ,|()]+" byName.${name}.depends);

  # Of packages that depend on each other in a circle, only the first by name keeps its dependencies.
  depends = if whole then name: circleless.${name} else wanted;
  circleless = builtins.mapAttrs (name: _: builtins.filter (d: d > name || !(reached.${d} ? ${name})) (wanted name)) byName;
  reached = builtins.mapAttrs (name: _: builtins.listToAttrs (map (x: { name = x.key; value = null; }) (from wanted name))) byName;

  # A package and its dependencies, direct and indirect.
  from = next: name: builtins.genericClosure {
    startSet = [ { key = name; } ];
    operator = x: map (key: { inherit key; }) (next x.key);
  };

  # The interpreter of scripts becomes bash, except in bash and its dependencies: they would depend on each other.
  belowBash = map (x: x.key) (from depends "bash");

  package = name: { version, file, sha256, ... }: run "${name}-${storable version}" {
    deb = builtins.path { path = file; name = "${name}.deb"; recursive = false; inherit sha256; };
    libraries = map (d: "${packages.${d}}/lib") (depends name);
    # glibc finds its own libraries, and a patched ld.so does not start.
    glibc = if name == "libc6" then "" else packages.libc6;
    bash = if builtins.elem name belowBash then "" else packages.bash;
    # Files of other packages for systemd and udev are not used here.
    whole = if whole then "1" else "";
    unwanted = if builtins.elem name [ "systemd" "libsystemd-shared" ] then [ ] else [ "systemd" "udev" ];
  } ". ${./debian.sh}";

  # "1:2.5~rc1-4" as a part of a store path's name: without the epoch, and with a dash instead of the tilde.
  storable = version: builtins.replaceStrings [ "~" ] [ "-" ] (builtins.elemAt (builtins.match "([0-9]+:)?(.*)" version) 1);

  packages = builtins.mapAttrs package byName;
in
packages
