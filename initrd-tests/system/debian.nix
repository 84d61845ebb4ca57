# Debian packages as Nix packages: a store path for each, by name.
{ run
, whole ? false # also what they share, and what is not for this system to run: to have many paths and much in them
}: list:

let
  byName = builtins.listToAttrs (map (p: { inherit (p) name; value = p; }) list);

  # Of the words in "libc6 (>= 2.36), default-foo | foo" those that name a package we have. glibc depends on libgcc and the other
  # way round; it loads it only for threads that are cancelled, and every C++ program has it loaded by then.
  wanted = name:
    if name == "libc6" then [ ]
    else builtins.filter (word: builtins.isString word && byName ? ${word}) (builtins.split "[ ,|()]+" byName.${name}.depends);

  # Where packages depend on each other in a circle, only the one that comes first by name keeps what it needs.
  depends = if whole then name: circleless.${name} else wanted;
  circleless = builtins.mapAttrs (name: _: builtins.filter (d: d > name || !(reached.${d} ? ${name})) (wanted name)) byName;
  reached = builtins.mapAttrs (name: _: builtins.listToAttrs (map (x: { name = x.key; value = null; }) (from wanted name))) byName;

  # A package and all that it leads to.
  from = next: name: builtins.genericClosure {
    startSet = [ { key = name; } ];
    operator = x: map (key: { inherit key; }) (next x.key);
  };

  # Scripts get bash for an interpreter; not in bash itself and what it is made of, or the two would need each other.
  belowBash = map (x: x.key) (from depends "bash");

  package = name: { version, file, sha256, ... }: run "${name}-${storable version}" {
    deb = builtins.path { path = file; name = "${name}.deb"; recursive = false; inherit sha256; };
    libraries = map (d: "${packages.${d}}/lib") (depends name);
    # glibc finds its own parts by itself, and a patched ld.so does not start.
    glibc = if name == "libc6" then "" else packages.libc6;
    bash = if builtins.elem name belowBash then "" else packages.bash;
    # What other packages bring for systemd and udev, nobody here uses.
    whole = if whole then "1" else "";
    unwanted = if builtins.elem name [ "systemd" "libsystemd-shared" ] then [ ] else [ "systemd" "udev" ];
  } ". ${./debian.sh}";

  # "1:2.5~rc1-4" without what the name of a store path cannot have: the epoch goes, the tilde becomes a dash.
  storable = version: builtins.replaceStrings [ "~" ] [ "-" ] (builtins.elemAt (builtins.match "([0-9]+:)?(.*)" version) 1);

  packages = builtins.mapAttrs package byName;
in
packages
