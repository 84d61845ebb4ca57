//! The output of stage 1: the kernel log and the consoles.

pub mod consoles;
pub mod kmsg;
