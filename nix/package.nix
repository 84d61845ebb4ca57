# firn for callPackage: the builder with the tools that it runs or, with builder = false, only firn-init, PID 1 of the ramdisk.
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

  # The files that cargo reads. It also needs the manifest and a target of every workspace member that it does not build.
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

  # The crate loopdev-3 makes its bindings with bindgen when it is built. bindgen needs libclang and the kernel's headers.
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

  # Instead of the flags in .cargo/config.toml, which link everything statically. The builder need not be static, and nixpkgs'
  # glibc has its static libraries in a separate output.
  env.RUSTFLAGS =
    if builder then
      "-C target-feature=-crt-static"
    else
      "-C target-feature=+crt-static -C relocation-model=static";

  # The tests need QEMU, Debian's packages and a Nix that can build. initrd-tests/run runs them.
  doCheck = false;

  # The tools come last in PATH, so that firn asks the build machine's own Nix, which knows the paths of its store.
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
        "Builder of images that boot NixOS entirely from memory"
      else
        "Stage 1 (PID 1 of the ramdisk) for NixOS systems that run from memory";
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
