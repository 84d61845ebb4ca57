# In the place of nixpkgs' installer/netboot/netboot.nix: the same options and outputs, with firn-init for stage 1.
#
# What depends on what: the toplevel on the options here that become kernel parameters; the store image on the toplevel; the build
# on both. Nothing leads back.
{
  config,
  lib,
  options,
  pkgs,
  modulesPath,
  ...
}:

let
  cfg = config.netboot.firn;
  inherit (config.system.build) toplevel;
  inherit (pkgs.stdenv.hostPlatform) system;

  # Newer nixpkgs name images by options (25.05), which netboot.nix imports.
  imageOptions = modulesPath + "/image/file-options.nix";
  hasImageOptions = builtins.pathExists imageOptions;

  kernelAtLeast = config.boot.kernelPackages.kernel.kernelAtLeast or (_: false);

  # The value of an option that not every nixpkgs has. One that was removed or renamed is still declared, but invisible, and may
  # throw when it is read.
  optionValue =
    path: default:
    let
      option = lib.attrByPath path null options;
    in
    if lib.isOption option && option.visible or true != false && option.isDefined then
      option.value
    else
      default;

  # Definitions of an option by anybody but nixpkgs itself. Its default counts as where it is declared.
  byOthers =
    path:
    lib.filter (definition: !lib.hasPrefix (toString modulesPath) (toString definition.file)) (
      (lib.attrByPath path { } options).definitionsWithLocations or [ ]
    );

  # The machine that `nixos-rebuild build-vm` makes of a configuration mounts and registers its host's store, in NixOS' own stage 1.
  isVm = lib.isOption (lib.attrByPath [ "virtualisation" "useDefaultFilesystems" ] null options);

  words = name: values: lib.concatMap (value: [ name (toString value) ]) values;
  word = name: value: lib.optionals (value != null) [ name (toString value) ];
  flag = name: wanted: lib.optional wanted name;

  # Every output is one call of firn, which finds its tools by itself.
  make =
    name: attributes: script:
    pkgs.runCommand name (attributes // { nativeBuildInputs = [ cfg.package ]; }) script;
  firn = arguments: "firn ${lib.escapeShellArgs arguments}";

  storeWords = [
    "${toplevel}"
    "--closure-info"
    "${pkgs.closureInfo { rootPaths = config.netboot.storeContents; }}"
  ]
  ++ flag "--without-kernel" cfg.withoutKernel;

  packingWords = [
    "--format"
    cfg.format
    "--compression"
    (if cfg.format == "squashfs" then config.netboot.squashfsCompression else cfg.erofsCompression)
  ]
  ++ word "--block-size" cfg.blockSize
  ++ word "--max-image" cfg.maxImage;

  # Of what compresses the ramdisks of NixOS, firn knows these by the same names, and has its own in place of others.
  compressor =
    let
      name = optionValue [ "boot" "initrd" "compressor" ] "zstd";
    in
    if
      lib.elem name [
        "gzip"
        "lz4"
        "xz"
        "zstd"
      ]
    then
      name
    else
      "zstd";

  # Modules beside those that firn always packs, for which stage 1 need not look at the machine's devices, and without those that
  # are not to be loaded.
  others =
    names:
    let
      left = [
        cfg.format
        "loop"
        "overlay"
      ]
      ++ optionValue [ "boot" "blacklistedKernelModules" ] [ ];
    in
    lib.unique (lib.filter (name: !lib.elem name left) names);

  ramdiskWords = [
    "--firn-init"
    "${cfg.init}"
    "--compressor"
    compressor
    "--database"
    cfg.database
    "--image-placement"
    cfg.imagePlacement
  ]
  ++ words "--module" (others (config.boot.initrd.kernelModules ++ cfg.modules))
  ++ words "--available-module" (others (config.boot.initrd.availableKernelModules ++ cfg.availableModules))
  ++ word "--rescue-shell" cfg.rescueShell
  ++ words "--prepend" (optionValue [ "boot" "initrd" "prepend" ] [ ] ++ cfg.prepend)
  ++ words "--append" cfg.append
  ++ flag "--verify" cfg.verify;

  # A file as in nixpkgs, or a directory of several where the store is too large for one.
  store = make "${cfg.format}.img" { } ''
    mkdir images
    ${firn ([ "image" ] ++ storeWords ++ packingWords)} --out images
    if [ "$(ls images | wc -l)" = 1 ]; then mv images/* $out; else mv images $out; fi
  '';

  # What all other outputs are made of. The ramdisk is an output of its own, so that what refers to it does not refer to the store
  # image once more.
  build = make "netboot" { outputs = [ "out" "ramdisk" ]; } ''
    images=${store}
    [ ! -d $images ] || images=$(printf '%s\n' ${store}/* | sort --version-sort)
    ${firn ([ "build" ] ++ storeWords ++ ramdiskWords)} $(printf -- '--image %s ' $images) --out $out
    mkdir $ramdisk
    mv $out/initrd $ramdisk/initrd
    ln -s $ramdisk/initrd $out/initrd
  '';

  ipxeTree = make "netboot-ipxe" { } ''
    ${
      firn (
        [
          "ipxe"
          "${build}"
        ]
        ++ flag "--split" cfg.ipxe.split
        ++ word "--base-url" cfg.ipxe.baseUrl
      )
    } --out $out
  '';

  kexecTree = make "kexec-tree" { } ''
    ${firn [ "kexec" "${build}" ]} --out $out
  '';

  kexecTarball =
    if hasImageOptions then
      make config.image.baseName { } ''
        file=$out/${lib.escapeShellArg config.image.filePath}
        mkdir -p "$(dirname "$file")" $out/nix-support
        ${firn [ "tarball" "${build}" "--prefix" config.image.baseName ]} --out "$file"
        echo "file system-tarball $file" > $out/nix-support/hydra-build-products
        echo ${system} > $out/nix-support/system
      ''
    else
      let
        name = "nixos-kexec-${config.system.nixos.label}-${system}";
      in
      make "${name}.tar.zst" { } ''
        ${firn [ "tarball" "${build}" "--prefix" name ]} --out $out
      '';

  # nixos-anywhere runs kexec/run, and wants neither kexec nor ip of the machine.
  installerTarball =
    make "kexec-tarball"
      {
        script = ./kexec-run.sh;
        carry = toString cfg.carry;
      }
      ''
        mkdir kexec $out
        cp ${build.ramdisk}/initrd kexec/initrd
        cp ${kexecTree}/bzImage ${kexecTree}/kexec-boot kexec
        cp ${pkgs.pkgsStatic.kexec-tools}/bin/kexec ${
          pkgs.pkgsStatic.iproute2.override { iptables = null; }
        }/bin/ip kexec
        sed "s|@carry@|$carry|" $script > kexec/run
        chmod u+w kexec/initrd
        chmod +x kexec/run
        ln -s initrd kexec/initrd.gz
        tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --create kexec |
          gzip -n1 > $out/nixos-kexec-installer-${system}.tar.gz
      '';

  uki = make "netboot-uki" { } ''
    ${
      firn (
        [
          "uki"
          "${build}"
          "--stub"
          "${cfg.uki.stub}"
        ]
        ++ flag "--without-image" cfg.uki.withoutImage
        ++ lib.optionals (cfg.uki.append != "") [ "--append" cfg.uki.append ]
      )
    } --out $out/nixos.efi
  '';

  # What firn-init does not do: the option, what of it is in use, and what to do instead.
  refused =
    let
      enabled = path: instead: {
        inherit path instead;
        used = optionValue path false == true;
      };
      # nixpkgs has LVM on by default wherever systemd is in stage 1.
      enabledByOthers = path: instead: enabled path instead // {
        used = optionValue path false == true && byOthers path != [ ];
      };
      notEmpty = path: instead: {
        inherit path instead;
        used = !lib.elem (optionValue path "") [ "" { } [ ] ];
      };
      # NixOS' own are for the keyboard, or for disks that hold the system. Those of others do something.
      commands =
        name:
        let
          path = [
            "boot"
            "initrd"
            name
          ];
        in
        {
          inherit path;
          used = optionValue path "" != "" && lib.any (definition: definition.value != "") (byOthers path);
          instead = "make it a systemd service of the running system";
        };
      mounts = removeAttrs config.fileSystems [
        "/"
        "/nix/.ro-store"
        "/nix/.rw-store"
        "/nix/store"
      ];
      # NixOS' stage 1 mounts these whatever neededForBoot says, since activation reads them or writes to them. (And /var/log, which can
      # wait for the running system.)
      isEarly =
        name:
        lib.elem (mounts.${name}.mountPoint or name) [
          "/etc"
          "/nix"
          "/usr"
          "/var"
          "/var/lib"
          "/var/lib/nixos"
        ];
      mountsNeeded = lib.filter (name: isEarly name || mounts.${name}.neededForBoot or false) (lib.attrNames mounts);
      inStage2 = "the running system can do it: it needs no disk to start";
      network = "the network is the running system's (networking.*, systemd.network.*)";
    in
    [
      (notEmpty [ "boot" "initrd" "luks" "devices" ]
        "unlock disks in the running system (environment.etc.crypttab, or cryptsetup in a service)"
      )
      (enabledByOthers [ "boot" "initrd" "services" "lvm" "enable" ] "set services.lvm.enable, for the running system")
      (enabled [ "boot" "initrd" "network" "enable" ] network)
      (enabled [ "boot" "initrd" "systemd" "network" "enable" ] network)
      (enabled [ "boot" "initrd" "network" "ssh" "enable" ] "set services.openssh.enable, for the running system")
      (enabled [ "boot" "initrd" "clevis" "enable" ] inStage2)
      (enabled [ "boot" "initrd" "unl0kr" "enable" ] inStage2)
      (enabled [ "boot" "initrd" "systemd" "repart" "enable" ] "set systemd.repart.enable, for the running system")
      (enabled [ "boot" "initrd" "systemd" "dmVerity" "enable" ]
        "set netboot.firn.verify: stage 1 then compares the store image with its checksum"
      )
      (notEmpty [ "boot" "initrd" "secrets" ]
        "a host's own files come in an archive of their own below /firn/root, or /.initrd-secrets (docs/boot.md)"
      )
    ]
    ++ map (name: {
      path = [
        "fileSystems"
        "\"${name}\""
      ]
      ++ lib.optional (!isEarly name) "neededForBoot";
      used = true;
      instead =
        (if isEarly name then "have the running system mount it elsewhere" else "leave it to the running system")
        + ", or keep the root on a disk (boot.persistence= on the kernel command line)";
    }) mountsNeeded
    ++ map commands [
      "preDeviceCommands"
      "preLVMCommands"
      "postDeviceCommands"
      "postResumeCommands"
      "postMountCommands"
      "preFailCommands"
    ];

  immutableEtc =
    optionValue [ "system" "etc" "overlay" "enable" ] false
    && !optionValue [ "system" "etc" "overlay" "mutable" ] true;

  inherit (lib) literalExpression mkOption types;
in
{
  # Also where netboot-minimal.nix and others import it.
  disabledModules = [ "installer/netboot/netboot.nix" ];

  imports = lib.optional hasImageOptions imageOptions;

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
        default = pkgs.buildPackages.callPackage ./package.nix { };
        defaultText = literalExpression "firn, built by this nixpkgs";
        example = literalExpression "inputs.firn.packages.x86_64-linux.firn";
        description = ''
          The builder, a program of the build machine. It takes a Rust of 1.91 or newer to build it; a configuration with an older
          nixpkgs takes it from the flake.
        '';
      };

      init = mkOption {
        type = types.path;
        default = "${pkgs.pkgsStatic.callPackage ./package.nix { builder = false; }}/bin/firn-init";
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

  config = lib.mkMerge [
    {
      # Its menu would be made of the toplevel, which is made of it.
      boot.loader.grub.enable = false;
      boot.loader.timeout = 10;

      # firn-init mounts these itself. They are here for the running system, whose fstab is made of them.
      fileSystems."/" = lib.mkImageMediaOverride {
        fsType = "tmpfs";
        options = [ "mode=0755" ];
      };

      fileSystems."/nix/.ro-store" = lib.mkImageMediaOverride {
        fsType = cfg.format;
        device = "../nix-store.${cfg.format}";
        options = [
          "loop"
        ]
        ++ lib.optional (cfg.format == "squashfs" && kernelAtLeast "6.2") "threads=multi";
        neededForBoot = true;
        # NixOS knows that a squashfs has none, and of an erofs it does not.
        noCheck = true;
      };

      fileSystems."/nix/.rw-store" = lib.mkImageMediaOverride {
        fsType = "tmpfs";
        options = [ "mode=0755" ];
        neededForBoot = true;
      };

      fileSystems."/nix/store" = lib.mkImageMediaOverride {
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

      boot.initrd.availableKernelModules = [
        cfg.format
        "overlay"
      ];
      boot.initrd.kernelModules = [
        "loop"
        "overlay"
      ];

      # Those without which the image would not be found are here, and not only in what firn makes, for whoever puts a command line
      # together of boot.kernelParams.
      boot.kernelParams = [
        "rootfstype=ramfs"
      ]
      ++ lib.optional (cfg.imagePlacement == "auto" && kernelAtLeast "6.8") "retain_initrd"
      ++ lib.optional (cfg.register != "prebuilt") "firn.register=${cfg.register}"
      ++ lib.optional (cfg.rwStoreSize != null) "firn.rw-store.size=${cfg.rwStoreSize}"
      ++ lib.optional (cfg.rootSize != null) "firn.root.size=${cfg.rootSize}"
      ++ lib.optional immutableEtc "firn.etc=immutable";

      netboot.storeContents = [ toplevel ];

      system.build = {
        squashfsStore = store;
        netbootBuild = build;
        netbootRamdisk = build.ramdisk;
        netbootIpxeTree = ipxeTree;
        netbootIpxeScript = pkgs.runCommand "netboot.ipxe" { } ''
          mkdir $out
          cp ${ipxeTree}/netboot.ipxe $out
        '';
        inherit kexecTree kexecTarball;
        kexecScript = pkgs.runCommand "kexec-boot" { } "cp ${kexecTree}/kexec-boot $out";
        kexecInstallerTarball = lib.mkDefault installerTarball;
        netbootUki = uki;
      };

      # firn-init has done it.
      systemd.services.register-nix-paths = lib.mkIf (!isVm) { enable = lib.mkDefault false; };

      # netboot.nix does this after it has registered the store. Before anybody could log in.
      systemd.services.live-password = {
        description = "Root's password from the kernel command line";
        wantedBy = [ "sysinit.target" ];
        before = [
          "shutdown.target"
          "sysinit.target"
        ];
        after = [
          "local-fs.target"
          "systemd-sysusers.service"
          "userborn.service"
        ];
        conflicts = [ "shutdown.target" ];
        restartIfChanged = false;
        unitConfig = {
          DefaultDependencies = false;
          ConditionKernelCommandLine = [
            "|live.nixos.passwordHash"
            "|live.nixos.password"
          ];
        };
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
        };
        path = [ pkgs.shadow ];
        script = ''
          # Only where there is none.
          while IFS=: read -r name hash rest; do
            [ "$name" != root ] || [ -z "$hash" ] || exit 0
          done < /etc/shadow
          read -r -a words < /proc/cmdline || true
          for word in "''${words[@]}"; do
            case $word in
              live.nixos.passwordHash=*) usermod --password "''${word#*=}" root ;;
              live.nixos.password=*) printf 'root:%s\n' "''${word#*=}" | chpasswd ;;
            esac
          done
        '';
      };

      assertions = lib.mkIf (!isVm) (
        map (
          { path, used, instead }:
          {
            assertion = !used;
            message = "${lib.concatStringsSep "." path} is set, and stage 1 is firn-init, which does not do that: ${instead}.";
          }
        ) refused
      );

      # As in the netboot.nix of older nixpkgs, but below what anybody has as a default.
      system.stateVersion = lib.mkOverride 1400 lib.trivial.release;
    }

    (lib.optionalAttrs hasImageOptions {
      image.extension = "tar.zst";
      image.filePath = "tarball/${config.image.fileName}";
      system.nixos.tags = [ "kexec" ];
      system.build.image = config.system.build.kexecTarball;
    })
  ];
}
