# Debian's systemd with few of its units, in the paths of NixOS, and a unit that starts the probe.
{ run, systemd }:

run "units" { inherit systemd; software = "/run/current-system/sw/bin"; } ''
  mkdir $out
  cd $systemd/lib/systemd/system
  cp -a basic.target final.target local-fs-pre.target local-fs.target multi-user.target paths.target shutdown.target \
    slices.target sockets.target swap.target sysinit.target timers.target umount.target kexec.target systemd-kexec.service \
    poweroff.target systemd-poweroff.service systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket \
    systemd-machine-id-commit.service systemd-remount-fs.service systemd-tmpfiles-setup.service $out
  cd $out
  # Debian's paths are not here.
  sed -i -E -e "s|^(Exec.*)=/lib/|\1=$systemd/lib/|" -e "s|^(Exec.*)=system|\1=$systemd/bin/system|" *.service
  # Debian's systemd looks for these programs in /bin, and no other unit runs before this one.
  sed -i "s|^Type=oneshot|&\nExecStartPre=$software/ln -sfn $software/mount $software/umount /bin|" systemd-remount-fs.service
  # Version 252 fails without a /var.
  sed -i "s|^After=.*|& systemd-tmpfiles-setup.service|" systemd-machine-id-commit.service

  # Switches off when the probe has ended, by the kernel. Not ended by systemd, which would be an end, too: it may kexec.
  cat > firn-probe.service << END
  [Unit]
  Description=What the tests want to know
  ConditionKernelCommandLine=probe
  DefaultDependencies=no
  After=sysinit.target basic.target
  SuccessAction=poweroff-immediate
  FailureAction=poweroff-immediate
  [Service]
  ExecStart=/run/current-system/sw/bin/firn-probe
  StandardOutput=tty
  StandardError=tty
  TTYPath=/dev/console
  END
  # Shows what a unit gets of the credentials that the boot loader brings.
  cat > firn-credentials.service << END
  [Service]
  Type=oneshot
  LoadCredentialEncrypted=firn.image
  LoadCredentialEncrypted=firn.global
  LoadCredential=firn.word
  SetCredential=firn.word:the unit has a default
  ExecStart=$software/sh -c 'cd \$\$CREDENTIALS_DIRECTORY && exec $software/grep "" *'
  StandardOutput=file:/run/firn-credentials
  END
  mkdir sysinit.target.wants sockets.target.wants multi-user.target.wants
  ln -s ../systemd-{journald,machine-id-commit,tmpfiles-setup}.service sysinit.target.wants
  ln -s ../systemd-journald{,-dev-log}.socket sockets.target.wants
  ln -s ../firn-probe.service multi-user.target.wants
  ln -s multi-user.target default.target
''
