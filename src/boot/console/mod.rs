//! Where stage 1 speaks: the kernel log and the consoles.

pub mod consoles;
pub mod kmsg;
