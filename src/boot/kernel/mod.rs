//! Interfaces of the kernel: mounts, loop devices, modules, processes, memory, clocks.

pub mod child;
pub mod clock;
pub mod coldplug;
pub mod command_line;
pub mod delete;
pub mod file;
pub mod left_out;
pub mod loop_device;
pub mod memory;
pub mod modules;
pub mod mount;
pub mod overlay;
pub mod processes;
pub mod release;
pub mod sys;
