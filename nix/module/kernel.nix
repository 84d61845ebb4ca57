# Assertions: the oldest kernel, and the length of the command line. firn checks the words themselves, and how many of them the kernel
# knows, when it builds an output.
{
  config,
  lib,
  modulesPath,
  options,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; }) isVm optionValue;

  cfg = config.netboot.firn;
  kernelAtLeast = config.boot.kernelPackages.kernel.kernelAtLeast or (_: true);
  version = config.boot.kernelPackages.kernel.version or "of an unknown version";
  etcOverlay = optionValue [ "system" "etc" "overlay" "enable" ] false;

  # As in src/build/ways/limits.rs: x86 and arm64 read one byte less than 2048, and boot loaders add words of their own.
  longest = 2047;
  room = 128;

  # The path of the toplevel has a hash of 32 characters; its name is the one in nixpkgs' system/activation/top-level.nix. The toplevel
  # itself depends on the assertions.
  systemName = optionValue [ "system" "name" ] "unnamed";
  hash = "00000000000000000000000000000000";
  init = "init=/nix/store/${hash}-nixos-system-${systemName}-${config.system.nixos.label}/init";
  # firn's boot files add it for zero copy.
  retain = lib.optional (cfg.imagePlacement == "auto" && kernelAtLeast "6.8") "retain_initrd";
  length =
    words:
    builtins.stringLength (lib.concatStringsSep " " ([ init ] ++ retain ++ config.boot.kernelParams ++ words));

  tooLong = words: bytes: limit: {
    assertion = bytes <= limit;
    message =
      "${words} make a kernel command line of ${toString bytes} bytes, and the kernel reads only ${toString longest}"
      + lib.optionalString (limit < longest) ", of which boot loaders need up to ${toString room} for words of their own"
      + ". Remove kernel parameters.";
  };
in
{
  config = {
    assertions = lib.mkIf (!isVm) (
      [
        (import ./refusal.nix {
          name = "boot.kernel.enable = false";
          used = !optionValue [ "boot" "kernel" "enable" ] true;
          reason = "every output has a kernel";
          instead = "Remove it";
        })
        {
          assertion = kernelAtLeast "5.6";
          message = "The kernel of boot.kernelPackages (${version}) is too old: firn's stage 1 needs Linux 5.6 or newer. Use a newer one.";
        }
        {
          assertion = etcOverlay -> kernelAtLeast "5.15";
          message =
            "system.etc.overlay.enable is set, and only Linux 5.15 or newer can read the image of this overlay: "
            + "the kernel of boot.kernelPackages (${version}) is older. Use a newer one, or set system.etc.overlay.enable = false.";
        }
        (tooLong "boot.kernelParams" (length [ ]) (longest - room))
      ]
      # The EFI stub adds nothing.
      ++ lib.optional (cfg.uki.append != "") (
        tooLong "boot.kernelParams and netboot.firn.uki.append" (length [ cfg.uki.append ]) longest
      )
    );
  };
}
