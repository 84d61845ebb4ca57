# A store path that fills a store: it refers to small ones, and has bytes that cannot be compressed.
{ paths # how many small ones
, bytes # how many
}:
derivation {
  name = "filler";
  system = "x86_64-linux";
  builder = "/bin/bash";
  PATH = "/usr/bin:/bin";
  small = builtins.genList (number: builtins.toFile "filler-${toString number}" "${toString number}\n") paths;
  passAsFile = [ "small" ]; # no variable of the environment may be so long
  inherit bytes;
  # The shell has to end last, as in the demo system.
  args = [
    "-euc"
    ''
      mkdir $out
      tr ' ' '\n' < $smallPath > $out/paths
      python3 -c 'import random, sys
      random.seed(1)
      left = int(sys.argv[1])
      while left:
          size = min(left, 1 << 20)
          sys.stdout.buffer.write(random.randbytes(size))
          left -= size' $bytes > $out/bytes
      exit
    ''
  ];
}
