# A store path that fills a store: it refers to small paths, to large paths of bytes that cannot be compressed, and to huge paths that need
# little room: text that repeats, a hole, and a line at the end.
{ paths # how many small ones
, bytes # how many in the large ones
, huge ? [ ] # the size of each huge one, in bytes
}:
let
  run = name: env: script: derivation (env // {
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/bash";
    PATH = "/usr/bin:/bin";
    # The shell must end last, as in the demo system.
    args = [ "-euc" "${script}\nexit" ];
  });
  each = 500000000;
  size = number: if (number + 1) * each <= bytes then each else bytes - number * each;
  large = number: run "filler-bytes" { inherit number; size = size number; } ''
    python3 -c 'import random, sys
    random.seed(sys.argv[1])
    left = int(sys.argv[2])
    while left:
        size = min(left, 1 << 20)
        sys.stdout.buffer.write(random.randbytes(size))
        left -= size' $number $size > $out
  '';
  sparse = size: run "filler-huge-${toString size}" { inherit size; } ''
    { yes "the text of $size" || true; } | head -c 100000000 > $out
    truncate -s $((size - 4)) $out
    echo end >> $out
  '';
in
run "filler"
{
  small = builtins.genList (number: builtins.toFile "filler-${toString number}" "${toString number}\n") paths;
  large = builtins.genList large ((bytes + each - 1) / each) ++ map sparse huge;
  passAsFile = [ "small" ]; # no variable of the environment may be so long
}
  ''
    mkdir $out
    tr ' ' '\n' < $smallPath > $out/paths
    printf '%s\n' $large > $out/bytes
  ''
