//! What the kernel command line asks of stage 1.

pub mod options;
pub mod values;
