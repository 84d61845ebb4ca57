//! A QEMU machine as a value: [`Machine`] says what boots, [`Machine::run`] returns the output as an [`Outcome`], and
//! [`Machine::interact`] connects a person to the console.
//!
//! The first serial port (`ttyS0`) is the console. With [`Machine::run`] there is a second one (`ttyS1`) for a report that a program
//! in the guest writes, apart from all other output. There is no display, and no network card unless the [`Loader`] has one. The
//! guest then reaches the host's 127.0.0.1 as 10.0.2.2, and nothing reaches the guest.

mod accel;
mod arguments;
mod capture;
pub mod command;
mod kvm;
mod loader;
mod machine;
pub mod marks;
mod outcome;
mod run;
pub mod steps;
pub mod uefi;

pub use kvm::Kvm;
pub use loader::Loader;
pub use machine::{Machine, OWN_PARAMETERS};
pub use outcome::{Exit, Outcome};
