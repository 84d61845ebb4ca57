# The options: those of nixpkgs' netboot.nix, and netboot.firn.*.
{
  config,
  lib,
  modulesPath,
  options,
  pkgs,
  ...
}:

let
  inherit (lib) literalExpression mkOption types;
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; }) optionValue;
in
{
  options.netboot = {
    storeContents = mkOption {
      type = types.listOf types.path;
      example = literalExpression "[ pkgs.stdenv ]";
      description = ''
        Store paths to pack into the store image, each with its closure. The system itself is always in the image. Each of them is a
        garbage collector root of the running system.
      '';
    };

    squashfsCompression = mkOption {
      type = types.str;
      default = "zstd -Xcompression-level 19";
      example = "zstd -Xcompression-level 6";
      description = ''
        Compression of a squashfs: a compressor and its options, written as mksquashfs expects them after `-comp`. Further
        options of mksquashfs may follow, such as `-b 1M`.
      '';
    };

    firn = {
      package = mkOption {
        type = types.package;
        default = pkgs.buildPackages.callPackage ../package.nix { };
        defaultText = literalExpression "firn, built with this nixpkgs";
        example = literalExpression "inputs.firn.packages.x86_64-linux.firn";
        description = ''
          The builder, a program that runs on the build machine. firn needs Rust 1.91 or newer. If this nixpkgs has an older one,
          use the package of firn's flake.
        '';
      };

      init = mkOption {
        type = types.path;
        default = "${pkgs.pkgsStatic.callPackage ../package.nix { builder = false; }}/bin/firn-init";
        defaultText = literalExpression "firn-init, built with pkgsStatic of this nixpkgs";
        example = literalExpression ''"''${inputs.firn.packages.x86_64-linux.firn-init}/bin/firn-init"'';
        description = ''
          The static firn-init, which becomes PID 1 of the ramdisk.
        '';
      };

      format = mkOption {
        type = types.enum [
          "squashfs"
          "erofs"
        ];
        default = "squashfs";
        example = "erofs";
        description = ''
          File system of the store image. A squashfs is smaller; an erofs is read several times faster.
        '';
      };

      erofsCompression = mkOption {
        type = types.str;
        default = "lz4hc,12";
        example = "none";
        description = ''
          Compression of an erofs, written as `mkfs.erofs -z` expects it, or `none`. For a squashfs see
          {option}`netboot.squashfsCompression`.
        '';
      };

      blockSize = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "256K";
        description = ''
          How much of the store is compressed at a time, from 4K to 1M. The default is 128K for squashfs and 64K for erofs.
          nixpkgs packs a squashfs with 1M: the image is 8 % smaller, and a start reads it with nearly three times the work.
        '';
      };

      maxImage = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "2G";
        description = ''
          Maximum size of a store image. A larger store is packed as several images, and `system.build.squashfsStore` is then a
          directory of images. The default is 2 GiB minus one byte, the largest file that every kernel can unpack.
        '';
      };

      withoutKernel = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Leave the system's kernel and NixOS' own ramdisk out of the store image. A machine that boots from memory does not need
          them there: the boot loader gets its own copy of the kernel and firn's ramdisk.
        '';
      };

      database = mkOption {
        type = types.enum [
          "prebuilt"
          "load"
        ];
        default = "prebuilt";
        example = "load";
        description = ''
          When the Nix database of the store is made: by the build (`prebuilt`), or by the system's own Nix at every boot
          (`load`).
        '';
      };

      register = mkOption {
        type = types.enum [
          "prebuilt"
          "load"
          "required"
          "none"
        ];
        default = "prebuilt";
        example = "required";
        description = ''
          How stage 1 makes the store known to Nix:

          - `prebuilt`: with the database in the ramdisk, or as with `load` if the ramdisk has no database;
          - `load`: with the system's own Nix;
          - `required`: as with `prebuilt`, but the boot fails if the registration fails;
          - `none`: not at all.
        '';
      };

      verify = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          At every boot, read the whole store image and compare it with its SHA-256 before it is mounted.
        '';
      };

      allowMissingModules = mkOption {
        type = types.bool;
        default = optionValue [ "boot" "initrd" "allowMissingModules" ] false;
        defaultText = literalExpression "config.boot.initrd.allowMissingModules, with nixpkgs that have it";
        example = true;
        description = ''
          Leave out kernel modules that the kernel does not have, and name them during the build: for kernels of vendors without some of
          the modules that NixOS lists. Those that stage 1 itself needs are still an error.
        '';
      };

      imagePlacement = mkOption {
        type = types.enum [
          "auto"
          "copy"
        ];
        default = "auto";
        example = "copy";
        description = ''
          Where the store image is in memory during the boot. With `auto` and Linux 6.8 or newer the ramdisk has a small one beside it,
          `zero-copy.cpio`. firn's own boot files load both: then the image stays where the boot loader put it, and the machine needs
          about half as much memory to boot. The kernel copies the image in all other cases: with `copy`, with an older kernel, or
          if the boot loader loads only `initrd`.
        '';
      };

      rwStoreSize = mkOption {
        type = types.nullOr (types.strMatching "[0-9]+[%kKmMgG]?");
        default = null;
        example = "80%";
        description = ''
          How much memory the writable layer of the Nix store may use. The default follows from the memory that is left after the ramdisk.
        '';
      };

      rootSize = mkOption {
        type = types.nullOr (types.strMatching "[0-9]+[%kKmMgG]?");
        default = null;
        example = "4g";
        description = ''
          How much memory the root file system may use. The default follows from the memory that is left after the ramdisk.
        '';
      };

      rescueShell = mkOption {
        type = types.nullOr types.path;
        default = null;
        example = literalExpression ''"''${pkgs.pkgsStatic.busybox}/bin/busybox"'';
        description = ''
          A static busybox for the rescue menu, which appears when a boot fails. The menu offers a shell if `boot.shell_on_fail`
          is on the kernel command line.
        '';
      };

      modules = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "virtio_blk" ];
        description = ''
          Kernel modules that stage 1 loads at every boot, in addition to {option}`boot.initrd.kernelModules`.
        '';
      };

      availableModules = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "nvme" ];
        description = ''
          Kernel modules that stage 1 loads if a device of the machine asks for them, in addition to
          {option}`boot.initrd.availableKernelModules`.
        '';
      };

      prepend = mkOption {
        type = types.listOf types.path;
        default = [ ];
        example = literalExpression ''[ "''${pkgs.microcode-amd}/amd-ucode.img" ]'';
        description = ''
          Ready-made ramdisk segments to put before firn's own, in addition to {option}`boot.initrd.prepend`.
        '';
      };

      append = mkOption {
        type = types.listOf types.path;
        default = [ ];
        example = literalExpression "[ ./host.cpio ]";
        description = ''
          Ready-made ramdisk segments to put after firn's own: cpio archives. Files below `/firn/root` in them are copied to the
          root of the running system. The archives are in the Nix store, where every user can read them: do not put secrets into
          them.
        '';
      };

      ipxe = {
        split = mkOption {
          type = types.bool;
          default = false;
          example = true;
          description = ''
            Let iPXE fetch the store image as a separate file and add it to the ramdisk. `system.build.netbootIpxeTree` has all
            files that iPXE fetches.
          '';
        };

        baseUrl = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "http://boot.example.org/nixos";
          description = ''
            URL of the directory with the kernel and the ramdisk, if it is not the directory of the iPXE script.
          '';
        };
      };

      uki = {
        stub = mkOption {
          type = types.path;
          default = "${config.systemd.package}/lib/systemd/boot/efi/linux${pkgs.stdenv.hostPlatform.efiArch}.efi.stub";
          defaultText = literalExpression "the stub of config.systemd.package";
          example = literalExpression ''"''${pkgs.systemdUkify}/lib/systemd/boot/efi/linuxx64.efi.stub"'';
          description = ''
            systemd's EFI stub for `system.build.netbootUki`.
          '';
        };

        append = mkOption {
          type = types.str;
          default = "";
          example = "firn.verify=full";
          description = ''
            More kernel parameters for `system.build.netbootUki`. Under Secure Boot nobody can change them later.
          '';
        };

        withoutImage = mkOption {
          type = types.bool;
          default = false;
          example = true;
          description = ''
            Leave the store image out of `system.build.netbootUki`. The boot loader then has to load it as a ramdisk. This needs
            the stub of systemd 261 or newer.
          '';
        };
      };

      carry = mkOption {
        type = types.listOf (types.strMatching "/[[:alnum:]._@+:*?/-]+");
        default = [
          "/etc/machine-id"
          "/etc/ssh/ssh_host_*"
        ];
        example = [ "/var/lib/tailscale/tailscaled.state" ];
        description = ''
          Files of the old system that `kexec/run` of `system.build.kexecInstallerTarball` copies to the same paths of the new
          system. `*` matches as in a shell. The SSH keys that may log in as root are always copied.
        '';
      };
    };
  };
}
