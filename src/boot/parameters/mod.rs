//! The kernel parameters that stage 1 reads.

pub mod limits;
pub mod options;
pub mod values;
