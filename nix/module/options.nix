# The options: those of nixpkgs' netboot.nix, and netboot.firn.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) literalExpression mkOption types;
in
{
  options.netboot = {
    storeContents = mkOption {
      type = types.listOf types.path;
      example = literalExpression "[ pkgs.stdenv ]";
      description = ''
        Store paths that are in the store image with their closures, beside the system itself.
      '';
    };

    squashfsCompression = mkOption {
      type = types.str;
      default = "zstd -Xcompression-level 19";
      example = "zstd -Xcompression-level 6";
      description = ''
        How a squashfs is compressed, in the words of mksquashfs.
      '';
    };

    firn = {
      package = mkOption {
        type = types.package;
        default = pkgs.buildPackages.callPackage ../package.nix { };
        defaultText = literalExpression "firn, built by this nixpkgs";
        example = literalExpression "inputs.firn.packages.x86_64-linux.firn";
        description = ''
          The builder, a program of the build machine. It takes a Rust of 1.91 or newer to build it; a configuration with an older
          nixpkgs takes it from the flake.
        '';
      };

      init = mkOption {
        type = types.path;
        default = "${pkgs.pkgsStatic.callPackage ../package.nix { builder = false; }}/bin/firn-init";
        defaultText = literalExpression "firn-init, built by pkgsStatic of this nixpkgs";
        example = literalExpression ''"''${inputs.firn.packages.x86_64-linux.firn-init}/bin/firn-init"'';
        description = ''
          The static firn-init that becomes PID 1 of the ramdisk.
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
          The file system of the store image: squashfs is the smaller one, erofs is read several times faster.
        '';
      };

      erofsCompression = mkOption {
        type = types.str;
        default = "lz4hc,12";
        example = "none";
        description = ''
          How an erofs is compressed, in the words of mkfs.erofs -z, or `none`. A squashfs has {option}`netboot.squashfsCompression`.
        '';
      };

      blockSize = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "256K";
        description = ''
          How much of the store is compressed at a time, 4K to 1M. By default squashfs has 1M and erofs 64K.
        '';
      };

      maxImage = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "2G";
        description = ''
          The largest that a store image may be. A store that takes more is packed as several images, and
          `system.build.squashfsStore` is a directory of them then. By default 2 GiB less a byte, the most
          that every kernel unpacks.
        '';
      };

      withoutKernel = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Leave the system's kernel and NixOS' own ramdisk out of the store image: firn and the boot loader bring theirs.
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
          When the Nix database of the store is made: now, or at every boot by the system's own Nix.
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
          How the store is registered with Nix at boot: by the database of the ramdisk, or by the system's Nix if there is none
          (`prebuilt`); by the system's Nix (`load`); as `prebuilt`, and the boot fails without (`required`); not (`none`).
        '';
      };

      verify = mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = ''
          Have every boot read the whole store image and compare it with its SHA-256 before it is mounted.
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
          Where stage 1 has the store image: with `auto` it stays where the boot loader put it if the kernel is 6.8 or newer, which
          takes half of the memory; with `copy` the kernel unpacks it.
        '';
      };

      rwStoreSize = mkOption {
        type = types.nullOr (types.strMatching "[0-9]+[%kKmMgG]?");
        default = null;
        example = "80%";
        description = ''
          How much of the memory what is written to the store may take. By default half of it.
        '';
      };

      rootSize = mkOption {
        type = types.nullOr (types.strMatching "[0-9]+[%kKmMgG]?");
        default = null;
        example = "4g";
        description = ''
          How much of the memory the root may take. By default half of it.
        '';
      };

      rescueShell = mkOption {
        type = types.nullOr types.path;
        default = null;
        example = literalExpression ''"''${pkgs.pkgsStatic.busybox}/bin/busybox"'';
        description = ''
          A static busybox for the menu of a boot that failed. It is offered if `boot.shell_on_fail` is on the kernel command line.
        '';
      };

      modules = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "virtio_blk" ];
        description = ''
          Kernel modules that every boot loads in stage 1, beside those of {option}`boot.initrd.kernelModules`.
        '';
      };

      availableModules = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "nvme" ];
        description = ''
          Kernel modules that stage 1 loads if a device of the machine asks for them, beside those of
          {option}`boot.initrd.availableKernelModules`.
        '';
      };

      prepend = mkOption {
        type = types.listOf types.path;
        default = [ ];
        example = literalExpression ''[ "''${pkgs.microcode-amd}/amd-ucode.img" ]'';
        description = ''
          Ready-made segments of the ramdisk before firn's own, beside those of {option}`boot.initrd.prepend`.
        '';
      };

      append = mkOption {
        type = types.listOf types.path;
        default = [ ];
        example = literalExpression "[ ./host.cpio ]";
        description = ''
          Ready-made segments of the ramdisk after firn's own: cpio archives, whose files below `/firn/root` are in the root of the
          running system. They are in the Nix store, where everybody can read them.
        '';
      };

      ipxe = {
        split = mkOption {
          type = types.bool;
          default = false;
          example = true;
          description = ''
            Have iPXE fetch the store image as a file of its own and put it into the ramdisk. All that it fetches is in
            `system.build.netbootIpxeTree`.
          '';
        };

        baseUrl = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "http://boot.example.org/nixos";
          description = ''
            Where kernel and ramdisk will be for iPXE, if that is not beside the script.
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
            systemd's stub for `system.build.netbootUki`.
          '';
        };

        append = mkOption {
          type = types.str;
          default = "";
          example = "firn.verify=full";
          description = ''
            More words for the kernel command line of `system.build.netbootUki`, which nobody can add to later.
          '';
        };

        withoutImage = mkOption {
          type = types.bool;
          default = false;
          example = true;
          description = ''
            Leave the store image out of `system.build.netbootUki`, for a boot loader that brings it as a ramdisk of its own. Takes the
            stub of systemd 261 or newer.
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
          Files of the host that `kexec/run` of `system.build.kexecInstallerTarball` carries over into the new system, to the same
          place: paths, with `*` for what a shell finds. The keys that may log in as root are carried over in any case.
        '';
      };
    };
  };
}
