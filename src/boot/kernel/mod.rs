//! The kernel's interfaces: mounts, loop devices, modules, processes, memory.

pub mod loop_device;
pub mod memory;
pub mod modules;
pub mod mount;
pub mod processes;
pub mod sys;
