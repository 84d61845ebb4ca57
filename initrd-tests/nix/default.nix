# All outputs of nix/module.nix for the demo system, in one directory. The argument `way` selects one of two sets of options.
{
  way, # "fat" or "split"
  firn, # file: the builder
  firnInit, # file: the firn-init to test
  kexec, # directory: made by ../kexec-tools
  packages,
  kernel,
  kind ? "classic",
  probe,
}:

let
  pkgs = import ./pkgs.nix // {
    pkgsStatic = {
      kexec-tools = copy "kexec-tools" (kexec + "/bin/kexec") "bin/kexec";
      # The test machine has no network addresses.
      iproute2.override = _: copy "iproute2" "/bin/false" "bin/ip";
    };
  };
  copy =
    name: file: to:
    pkgs.runCommand name { file = builtins.path { path = file; name = baseNameOf file; }; } ''
      install -D "$file" "$out/${to}"
    '';

  inherit
    (import ./evaluate.nix {
      inherit pkgs;
      generation = if way == "fat" then "new" else "old";
      modules = [
        demo
        ways.${way}
      ];
    })
    config
    ;
  build = config.system.build;

  demo = { config, ... }: {
    boot.kernelPackages.kernel.kernelAtLeast = version: builtins.compareVersions release version >= 0;
    boot.kernelParams = [
      "panic=-1"
      "probe=carried"
    ];
    netboot.firn = {
      package = copy "firn" firn "bin/firn";
      init = copy "firn-init" firnInit "bin/firn-init" + "/bin/firn-init";
      rescueShell = copy "busybox" "/bin/busybox" "bin/busybox" + "/bin/busybox";
      blockSize = "128K";
    };
    system.build.toplevel = import ../system {
      inherit
        kernel
        kind
        packages
        probe
        ;
      inherit (config.boot) kernelParams;
    };
  };
  release = builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile (kernel + "/release"));

  ways = {
    # Mostly the defaults, with a fast compression.
    fat = {
      netboot.squashfsCompression = "zstd -Xcompression-level 1";
      netboot.firn = {
        register = "required";
        rwStoreSize = "70%";
        availableModules = [ "virtio_net" ];
        uki.stub = builtins.path {
          path = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
          name = "stub";
        };
        uki.append = "way=uki";
        carry = [ "/etc/firn-*/*" ];
      };
    };
    split = {
      netboot.firn = {
        format = "erofs";
        erofsCompression = "lz4";
        maxImage = "48M";
        withoutKernel = true;
        verify = true;
        database = "load";
        ipxe.split = true;
      };
    };
  };

  outputs = {
    inherit (build)
      kexecScript
      kexecTarball
      kexecTree
      netbootBuild
      netbootIpxeScript
      netbootIpxeTree
      netbootRamdisk
      squashfsStore
      toplevel
      ;
  }
  // (if way == "fat" then { inherit (build) kexecInstallerTarball netbootUki; } else { });
in
pkgs.runCommand "outputs" outputs ''
  mkdir $out
  ${builtins.concatStringsSep "\n" (map (name: "ln -s \$${name} $out/${name}") (builtins.attrNames outputs))}
''
