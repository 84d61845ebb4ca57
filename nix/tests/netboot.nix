# NixOS tests, for a machine with nixpkgs and KVM: a system with the module boots from kernel and ramdisk, with iPXE and with kexec.
# Run `nix flake check` or `nix-build -A tests`.
{ pkgs, module }:

let
  inherit (pkgs) lib;

  # As in nixpkgs' own test of netboot.nix (nixos/tests/boot.nix).
  system =
    extra:
    (import (pkgs.path + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        module
        (pkgs.path + "/nixos/modules/testing/test-instrumentation.nix")
        {
          nixpkgs.pkgs = pkgs;
          boot.kernelParams = [ "live.nixos.password=firn" ];
          netboot.squashfsCompression = "zstd -Xcompression-level 1";
        }
        extra
      ];
    }).config.system.build;

  kinds = {
    systemd.boot.initrd.systemd.enable = true;
    nixos-init = {
      boot.initrd.systemd.enable = true;
      system.nixos-init.enable = true;
      system.etc.overlay.enable = true;
      services.userborn.enable = true;
    };
  };

  test =
    name: testScript:
    pkgs.testers.runNixOSTest {
      name = "firn-${name}";
      nodes = { };
      testScript = ''
        def is_whole(machine):
            machine.wait_for_unit("multi-user.target")
            # The store has exactly the paths that stage 1 registered.
            machine.succeed("nix-store --verify --check-contents")
            # nixos-rebuild needs these.
            machine.succeed("test -e /etc/NIXOS")
            machine.succeed(
                "test $(readlink -f /nix/var/nix/profiles/system) = $(readlink -f /run/current-system)"
            )
            machine.succeed("nix-store --query --requisites /run/current-system")
            machine.fail("systemctl is-active register-nix-paths.service")
            machine.succeed("test -s /run/firn/boot.json")
            machine.succeed("! grep '^root::' /etc/shadow")

        ${testScript}
      '';
    };

  qemu = "${pkgs.qemu_test}/bin/qemu-system-x86_64 -machine accel=kvm:tcg -cpu max -m 3000 -device virtio-rng-pci";
  network = "-netdev user,id=net0";

  direct =
    build:
    test "kernel-and-ramdisk" ''
      command = (
          "${qemu} -kernel ${build.kernel}/bzImage -initrd ${build.netbootRamdisk}/initrd"
          ' -append "$(sed "s/^kernel bzImage //; s/ initrd=.*//; t; d" ${build.netbootIpxeScript}/netboot.ipxe)"'
      )
      machine = create_machine(command)
      machine.start()
      is_whole(machine)
      machine.shutdown()
    '';

  ipxe =
    build:
    let
      directory = pkgs.symlinkJoin {
        name = "ipxe-directory";
        paths = [
          build.netbootRamdisk
          build.kernel
          build.netbootIpxeScript
        ];
      };
    in
    test "ipxe" ''
      machine = create_machine(
          "${qemu} -boot order=n ${network},tftp=${directory},bootfile=netboot.ipxe"
          " -device virtio-net-pci,netdev=net0"
      )
      machine.start()
      is_whole(machine)
      machine.shutdown()
    '';

  kexec =
    build:
    pkgs.testers.runNixOSTest {
      name = "firn-kexec";
      nodes.machine = {
        virtualisation.memorySize = 4096;
        virtualisation.vlans = [ ];
        environment.systemPackages = [ pkgs.kexec-tools ];
        system.extraDependencies = [ build.kexecTree ];
      };
      testScript = ''
        machine.wait_for_unit("multi-user.target")
        machine.succeed("touch /run/before")
        machine.execute("${build.kexecTree}/kexec-boot >&2 &", check_return=False)
        machine.connected = False
        machine.connect()
        machine.wait_for_unit("multi-user.target")
        machine.succeed("! test -e /run/before")
        machine.succeed("nix-store --verify --check-contents")
        machine.shutdown()
      '';
    };

  ways = {
    inherit direct ipxe kexec;
  };
in
lib.concatMapAttrs (
  kind: extra: lib.mapAttrs' (way: of: lib.nameValuePair "${kind}-${way}" (of (system extra))) ways
) kinds
