//! PID 1 of the initramfs: the whole boot is [`firn::boot::run`].

use firn::boot;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!(
            "firn-init {}: stage 1 of a NixOS system that runs from memory. It is the init of a ramdisk made by `firn build` \
             and does nothing but as process 1 there.",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::FAILURE;
    }
    std::panic::set_hook(Box::new(|panic| {
        boot::rescue::fail(&anyhow::anyhow!("{panic}").context("a bug in firn-init"))
    }));
    let Err(error) = boot::run();
    boot::rescue::fail(&error)
}
