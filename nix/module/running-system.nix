# What the running system does and no longer does.
{
  lib,
  modulesPath,
  options,
  pkgs,
  ...
}:

let
  inherit (import ./nixpkgs.nix { inherit lib modulesPath options; }) isVm;
in
{
  config = {
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

    # As in the netboot.nix of older nixpkgs, but below what anybody has as a default.
    system.stateVersion = lib.mkOverride 1400 lib.trivial.release;
  };
}
