# What nix/module.nix makes of configurations: by name, whatever is not as expected. Nothing is built.
{
  lib ? import ./lib.nix,
}:

let
  inherit (lib) mkDefault mkForce;

  package =
    name:
    derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "none";
    };
  firn = package "firn";
  toplevel = package "nixos-system";
  other = package "other";
  pkgs = import ./pkgs.nix // {
    pkgsStatic.kexec-tools = package "kexec-tools";
    pkgsStatic.iproute2.override = _: package "iproute2";
  };

  # A system with a kernel of this version, and what every configuration here has.
  base = version: {
    boot.kernelPackages.kernel.kernelAtLeast = least: builtins.compareVersions version least >= 0;
    system.build.toplevel = toplevel;
    systemd.package = package "systemd";
    netboot.firn.package = mkDefault firn;
    netboot.firn.init = mkDefault "/firn-init";
  };
  evaluate =
    generation: module:
    import ./evaluate.nix {
      inherit generation lib pkgs;
      modules = [
        (base "6.12")
        module
      ];
    };
  config = module: (evaluate "new" module).config;
  old = module: (evaluate "old" module).config;
  build = module: (config module).system.build;

  # The line of a derivation's script that calls firn, without quotes where older nixpkgs put some that do nothing.
  call =
    output:
    let
      lines = builtins.filter builtins.isString (builtins.split "\n" output.buildCommand);
      line = builtins.head (lib.filter (line: builtins.match "[[:space:]]*firn .*" line != null) lines);
      part = part: if builtins.isList part then builtins.head part else part;
    in
    builtins.concatStringsSep "" (map part (builtins.split "'([[:alnum:],._+:@%/=-]+)'" line));

  closure = pkgs.closureInfo { rootPaths = [ toplevel ]; };
  store = "${toplevel} --closure-info ${closure}";
  of = build { };

  everything = {
    netboot.storeContents = [ other ];
    boot.blacklistedKernelModules = [ "pcspkr" ];
    boot.initrd = {
      kernelModules = [ "dm_mod" ];
      availableKernelModules = [
        "ahci"
        "nvme"
        "pcspkr"
      ];
      prepend = [ "/ucode.img" ];
      compressor = "xz";
    };
    netboot.firn = {
      format = "erofs";
      erofsCompression = "none";
      blockSize = "16K";
      maxImage = "1G";
      withoutKernel = true;
      database = "load";
      verify = true;
      imagePlacement = "copy";
      rescueShell = "/busybox";
      modules = [
        "dm_mod"
        "virtio_blk"
      ];
      availableModules = [ "virtio_net" ];
      prepend = [ "/more.img" ];
      append = [ "/host.cpio" ];
      register = "none";
      rwStoreSize = "80%";
      rootSize = "4g";
      ipxe.split = true;
      ipxe.baseUrl = "http://server/boot";
      uki.append = "firn.verify=full quiet";
      uki.withoutImage = true;
      uki.stub = "/stub.efi";
    };
  };
  all = build everything;
  wholeStore = "${toplevel} --closure-info ${
    pkgs.closureInfo { rootPaths = (config everything).netboot.storeContents; }
  } --without-kernel";

  # The messages of the assertions that a configuration does not meet.
  complaints = config: map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);
  complainsOf =
    config: name: advice:
    let
      said = complaints config;
    in
    builtins.length said == 1
    && builtins.match "${name} is set, .*${advice}.*" (builtins.head said) != null;

  # Options of the module's own without a type, a default, a description or an example.
  undocumented =
    let
      leaves = set: lib.concatMap (option: if lib.isOption option then [ option ] else leaves option) (builtins.attrValues set);
    in
    lib.filter (
      option: !(option ? type && option ? default && option ? description && option ? example)
    ) (leaves (evaluate "new" { }).options.netboot.firn);

  checks = {
    "the store image" = {
      actual = call of.squashfsStore;
      expected = "firn image ${store} --format squashfs --compression 'zstd -Xcompression-level 19' --out images";
    };
    "the store image with every option" = {
      actual = call all.squashfsStore;
      expected = "firn image ${wholeStore} --format erofs --compression none --block-size 16K --max-image 1G --out images";
    };
    "the contents of the store" = {
      actual = builtins.sort builtins.lessThan (map toString (config everything).netboot.storeContents);
      expected = builtins.sort builtins.lessThan [ "${toplevel}" "${other}" ];
    };
    "nixpkgs' own option for compression" = {
      actual = call (build { netboot.squashfsCompression = "lz4"; }).squashfsStore;
      expected = "firn image ${store} --format squashfs --compression lz4 --out images";
    };
    "the ramdisk" = {
      actual = call of.netbootBuild;
      expected = "firn build ${store} --firn-init /firn-init --compressor zstd --database prebuilt --image-placement auto $(printf -- '--image %s ' $images) --out $out";
    };
    "the ramdisk with every option" = {
      actual = call all.netbootBuild;
      expected =
        "firn build ${wholeStore} --firn-init /firn-init --compressor xz --database load --image-placement copy"
        + " --module dm_mod --module virtio_blk --available-module ahci --available-module nvme --available-module virtio_net"
        + " --rescue-shell /busybox --prepend /ucode.img --prepend /more.img --append /host.cpio --verify"
        + " $(printf -- '--image %s ' $images) --out $out";
    };
    "the ramdisk of a compressor that firn does not know" = {
      actual = call (build { boot.initrd.compressor = pkgs: "pigz"; }).netbootBuild == call of.netbootBuild;
      expected = true;
    };
    "where the ramdisk is" = {
      actual = of.netbootRamdisk.outPath;
      expected = of.netbootBuild.ramdisk.outPath;
    };
    "iPXE" = {
      actual = call of.netbootIpxeTree;
      expected = "firn ipxe ${of.netbootBuild} --out $out";
    };
    "iPXE with every option" = {
      actual = call all.netbootIpxeTree;
      expected = "firn ipxe ${all.netbootBuild} --split --base-url http://server/boot --out $out";
    };
    "kexec" = {
      actual = call of.kexecTree;
      expected = "firn kexec ${of.netbootBuild} --out $out";
    };
    "the tarball" = {
      actual = call of.kexecTarball;
      expected = ''        firn tarball ${of.netbootBuild} --prefix nixos-image-26.05-x86_64-linux --out "$file"'';
    };
    "the tarball of an older nixpkgs" = {
      actual = map (output: [
        output.name
        (call output)
      ]) [ (old { }).system.build.kexecTarball ];
      expected = [
        [
          "nixos-kexec-26.05-x86_64-linux.tar.zst"
          "firn tarball ${(old { }).system.build.netbootBuild} --prefix nixos-kexec-26.05-x86_64-linux --out $out"
        ]
      ];
    };
    "what newer nixpkgs call an image" = {
      actual = [
        (config { }).image.filePath
        of.image.outPath
      ];
      expected = [
        "tarball/nixos-image-26.05-x86_64-linux.tar.zst"
        of.kexecTarball.outPath
      ];
    };
    "UEFI" = {
      actual = call of.netbootUki;
      expected = "firn uki ${of.netbootBuild} --stub ${package "systemd"}/lib/systemd/boot/efi/linuxx64.efi.stub --out $out/nixos.efi";
    };
    "UEFI with every option" = {
      actual = call all.netbootUki;
      expected = "firn uki ${all.netbootBuild} --stub /stub.efi --without-image --append 'firn.verify=full quiet' --out $out/nixos.efi";
    };

    "the mounts" = {
      actual = (config { }).fileSystems;
      expected = {
        "/" = {
          fsType = "tmpfs";
          options = [ "mode=0755" ];
        };
        "/nix/.ro-store" = {
          fsType = "squashfs";
          device = "../nix-store.squashfs";
          options = [
            "loop"
            "threads=multi"
          ];
          neededForBoot = true;
          noCheck = true;
        };
        "/nix/.rw-store" = {
          fsType = "tmpfs";
          options = [ "mode=0755" ];
          neededForBoot = true;
        };
        "/nix/store" = {
          fsType = "overlay";
          device = "overlay";
          options = [
            "lowerdir=/nix/.ro-store"
            "upperdir=/nix/.rw-store/store"
            "workdir=/nix/.rw-store/work"
          ];
          depends = [
            "/nix/.ro-store"
            "/nix/.rw-store/store"
            "/nix/.rw-store/work"
          ];
          neededForBoot = true;
        };
      };
    };
    "the store's mount of an erofs" = {
      actual = (config everything).fileSystems."/nix/.ro-store";
      expected = {
        fsType = "erofs";
        device = "../nix-store.erofs";
        options = [ "loop" ];
        neededForBoot = true;
        noCheck = true;
      };
    };
    "the store's mount on an old kernel" = {
      actual = (config { imports = [ (mkOld "6.1") ]; }).fileSystems."/nix/.ro-store".options;
      expected = [ "loop" ];
    };
    "the modules" = {
      actual = { inherit ((config { }).boot.initrd) kernelModules availableKernelModules; };
      expected = {
        kernelModules = [
          "loop"
          "overlay"
        ];
        availableKernelModules = [
          "squashfs"
          "overlay"
        ];
      };
    };
    "the boot loader" = {
      actual = (config { }).boot.loader;
      expected = {
        grub.enable = false;
        timeout = 10;
      };
    };
    "the command line" = {
      # Who comes first is not for a module to say.
      actual = builtins.sort builtins.lessThan (config { boot.kernelParams = [ "quiet" ]; }).boot.kernelParams;
      expected = [
        "quiet"
        "retain_initrd"
        "rootfstype=ramfs"
      ];
    };
    "the command line with every option" = {
      actual = (config everything).boot.kernelParams;
      expected = [
        "rootfstype=ramfs"
        "firn.register=none"
        "firn.rw-store.size=80%"
        "firn.root.size=4g"
      ];
    };
    "the command line of an old kernel" = {
      actual = (config { imports = [ (mkOld "6.6") ]; }).boot.kernelParams;
      expected = [ "rootfstype=ramfs" ];
    };
    "the command line of an /etc that cannot be written to" = {
      actual =
        (config {
          system.etc.overlay.enable = true;
          system.etc.overlay.mutable = false;
        }).boot.kernelParams;
      expected = [
        "rootfstype=ramfs"
        "retain_initrd"
        "firn.etc=immutable"
      ];
    };
    "what firn-init has done is switched off" = {
      actual = (config { }).systemd.services.register-nix-paths;
      expected.enable = false;
    };

    "options that a user has set" = {
      actual =
        let
          set = config {
            boot.loader.timeout = mkForce 1;
            fileSystems."/" = mkForce { fsType = "btrfs"; };
            system.stateVersion = "24.05";
            system.build.kexecInstallerTarball = other;
            systemd.services.register-nix-paths.enable = true;
            systemd.services.mine.enable = true;
          };
        in
        [
          set.boot.loader.timeout
          set.fileSystems."/"
          set.system.stateVersion
          set.system.build.kexecInstallerTarball.name
          set.systemd.services.register-nix-paths.enable
          set.systemd.services.mine.enable
        ];
      expected = [
        1
        { fsType = "btrfs"; }
        "24.05"
        "other"
        true
        true
      ];
    };
    "a default of a user" = {
      actual = (config { system.stateVersion = mkDefault "24.05"; }).system.stateVersion;
      expected = "24.05";
    };
    "nixpkgs' own module, by whatever brings it in" = {
      actual = (config { imports = [ ./new/installer/netboot/netboot.nix ]; }).netboot.storeContents == [ toplevel ];
      expected = true;
    };
    "nixpkgs' own module of an older nixpkgs" = {
      actual = (old { imports = [ ./old/installer/netboot/netboot.nix ]; }).netboot.storeContents == [ toplevel ];
      expected = true;
    };
    "the toplevel takes nothing that firn makes" = {
      actual =
        let
          set = config {
            netboot.firn.package = throw "the toplevel asks for firn";
            netboot.firn.init = throw "the toplevel asks for firn-init";
          };
        in
        builtins.deepSeq [
          set.fileSystems
          set.boot.kernelParams
          set.boot.loader
          set.systemd.services
          (complaints set)
        ] true;
      expected = true;
    };

    "nothing is wrong with a configuration that sets nothing" = {
      actual = map (config: [ (complaints config) config.warnings ]) [ (config { }) (old { }) ];
      expected = [ [ [ ] [ ] ] [ [ ] [ ] ] ];
    };
    "nothing is wrong with one that sets everything" = {
      actual = complaints (config everything);
      expected = [ ];
    };
    "LUKS" = {
      actual = complainsOf (config { boot.initrd.luks.devices.root.device = "/dev/vda"; }) "boot.initrd.luks.devices" "crypttab";
      expected = true;
    };
    "LVM" = {
      actual = complainsOf (config { boot.initrd.services.lvm.enable = true; }) "boot.initrd.services.lvm.enable" "services.lvm.enable";
      expected = true;
    };
    "network" = {
      actual = complainsOf (config { boot.initrd.network.enable = true; }) "boot.initrd.network.enable" "networking";
      expected = true;
    };
    "secrets" = {
      actual = complainsOf (config { boot.initrd.secrets."/key" = "/key"; }) "boot.initrd.secrets" "/firn/root";
      expected = true;
    };
    "hooks" = {
      actual = map (name: complainsOf (old { boot.initrd.${name} = "echo"; }) "boot.initrd.${name}" "systemd service") [
        "preDeviceCommands"
        "preLVMCommands"
        "postDeviceCommands"
        "postMountCommands"
        "preFailCommands"
      ];
      expected = builtins.genList (_: true) 5;
    };

    "hooks that do nothing" = {
      actual = complaints (old { boot.initrd.postMountCommands = ""; });
      expected = [ ];
    };
    "a disk of stage 1" = {
      actual = complainsOf (config {
        fileSystems."/nix/persist" = {
          device = "/dev/vda";
          neededForBoot = true;
        };
        fileSystems."/data".device = "/dev/vdb";
      }) "fileSystems.\"/nix/persist\".neededForBoot" "boot.persistence";
      expected = true;
    };

    "a disk for what activation writes" = {
      actual = complainsOf (config {
        fileSystems."/var".device = "/dev/vda";
        fileSystems."/var/log".device = "/dev/vdb";
      }) "fileSystems.\"/var\"" "boot.persistence";
      expected = true;
    };
    # nixos-rebuild build-vm: nixpkgs' qemu-vm.nix.
    "a virtual machine of the configuration" = {
      actual =
        let
          vm = config {
            imports = [
              {
                options.virtualisation.useDefaultFilesystems = lib.mkOption {
                  type = lib.types.bool;
                  default = true;
                };
              }
            ];
            fileSystems."/tmp/shared" = {
              fsType = "9p";
              neededForBoot = true;
            };
            systemd.services.register-nix-paths.script = "nix-store --load-db";
          };
        in
        [
          (complaints vm)
          vm.systemd.services.register-nix-paths
        ];
      expected = [
        [ ]
        { script = "nix-store --load-db"; }
      ];
    };

    "every option has a type, a default, a description and an example" = {
      actual = builtins.length undocumented;
      expected = 0;
    };
  };

  mkOld = version: {
    boot.kernelPackages = mkForce (base version).boot.kernelPackages;
  };
in
{
  wrong = lib.filter (check: check.actual != check.expected) (
    map (name: { inherit name; } // checks.${name}) (builtins.attrNames checks)
  );
  count = builtins.length (builtins.attrNames checks);
  password = (config { }).systemd.services.live-password.script;
}
