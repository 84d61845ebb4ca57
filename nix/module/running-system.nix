# Units and settings of the running system.
{ lib, pkgs, ... }:

{
  config = {
    # netboot.nix does this in postBootCommands. The unit runs before a login is possible.
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
        # Only if root has no password.
        while IFS=: read -r name hash rest; do
          [ "$name" != root ] || [ -z "$hash" ] || exit 0
        done < /etc/shadow
        read -r -a parameters < /proc/cmdline || true
        for parameter in "''${parameters[@]}"; do
          case $parameter in
            live.nixos.passwordHash=*) usermod --password "''${parameter#*=}" root ;;
            live.nixos.password=*) printf 'root:%s\n' "''${parameter#*=}" | chpasswd ;;
          esac
        done
      '';
    };

    # As in the netboot.nix of older nixpkgs, but with a priority below mkDefault, so that a default of the user wins.
    system.stateVersion = lib.mkOverride 1400 lib.trivial.release;
  };
}
