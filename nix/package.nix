# firn for callPackage: the builder with the tools that it runs, or with builder = false PID 1 of the ramdisk alone.
{
  lib,
  rustPlatform,
  makeWrapper,
  installShellFiles,
  pkgsStatic,
  stdenv,
  nix,
  squashfsTools,
  erofs-utils,
  builder ? true,
  firn-init ? pkgsStatic.callPackage ./package.nix { builder = false; },
}:

let
  manifest = (lib.importTOML ../Cargo.toml).workspace.package;

  # What cargo reads: of the members of the workspace that are not built it wants the manifests and one target.
  sources = lib.fileset.unions [
    ../.cargo
    ../Cargo.lock
    ../Cargo.toml
    ../src
    ../initrd-tests/Cargo.toml
    ../initrd-tests/src
    ../qemu/Cargo.toml
    ../qemu/src
  ];
in
rustPlatform.buildRustPackage {
  pname = if builder then "firn" else "firn-init";
  inherit (manifest) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = sources;
  };
  cargoLock.lockFile = ../Cargo.lock;

  # For the crate loopdev-3, which reads the kernel's headers.
  nativeBuildInputs = [
    rustPlatform.bindgenHook
  ]
  ++ lib.optionals builder [
    installShellFiles
    makeWrapper
  ];

  cargoBuildFlags = [
    "--package"
    "firn"
    "--bin"
    (if builder then "firn" else "firn-init")
  ];
  buildNoDefaultFeatures = !builder;

  # In place of those of .cargo/config.toml, which make everything static: the builder has no need of a static glibc.
  env.RUSTFLAGS =
    if builder then
      "-C target-feature=-crt-static"
    else
      "-C target-feature=+crt-static -C relocation-model=static";

  # The tests need a Nix that builds, QEMU, and Debian's packages: initrd-tests/run.
  doCheck = false;

  # After the build machine's own, so that the Nix that knows a store is the one that is asked about it.
  postInstall = lib.optionalString builder ''
    ln -s ${firn-init}/bin/firn-init $out/bin/firn-init
    wrapProgram $out/bin/firn --suffix PATH : ${
      lib.makeBinPath [
        nix
        squashfsTools
        erofs-utils
      ]
    }
  ''
  + lib.optionalString (builder && stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    $out/bin/firn man man
    installManPage man/*.1
    for shell in bash fish zsh; do $out/bin/firn completions $shell > firn.$shell; done
    installShellCompletion firn.{bash,fish,zsh}
  '';

  passthru = lib.optionalAttrs builder { inherit firn-init; };

  meta = {
    description =
      if builder then
        "Builder of NixOS systems that run from memory, and of the stage 1 that boots them"
      else
        "Stage 1 of NixOS systems that run from memory";
    license = with lib.licenses; [
      mit
      asl20
    ];
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    mainProgram = if builder then "firn" else "firn-init";
  };
}
