//! What no crate wraps. The only file of the project that may hold `unsafe`.
#![allow(unsafe_code)]

use linux_raw_sys::loop_device::{LO_FLAGS_AUTOCLEAR, LO_FLAGS_READ_ONLY, LOOP_CONFIGURE, loop_config};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Puts the loop device `device` over `size` bytes from `offset` on of `file`, or all that follows with a size of 0: read-only,
/// and given back to the kernel when its last user closes it. One
/// call since 5.8 (`man 4 loop`) where `LOOP_SET_FD` and `LOOP_SET_STATUS64` are two and freeze the queue in
/// between, which costs 15 to 20 ms.
///
/// # Errors
///
/// Those of ioctl(2); `EINVAL` or `ENOTTY` from a kernel that does not have the call.
pub fn loop_configure(device: &impl AsRawFd, file: &impl AsRawFd, offset: u64, size: u64) -> rustix::io::Result<()> {
    // SAFETY: plain numbers and arrays of numbers, for which zeros are valid: the default block size.
    let mut config: loop_config = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    config.info.lo_offset = offset;
    config.info.lo_sizelimit = size;
    config.info.lo_flags = LO_FLAGS_READ_ONLY as u32 | LO_FLAGS_AUTOCLEAR as u32;
    // By rustix and not by a C library: of those each has another type for the number of an ioctl.
    // SAFETY: the device is open as long as its owner is borrowed here; the kernel reads one loop_config and keeps nothing of it.
    unsafe { ioctl(BorrowedFd::borrow_raw(device.as_raw_fd()), Setter::<LOOP_CONFIGURE, _>::new(config)) }
}

/// Makes `command` the leader of a new session, controlled by the terminal that is its standard input: without it a shell has
/// no job control, and Ctrl-C reaches nobody.
pub fn in_own_session(command: &mut Command) {
    let prepare = || {
        // PID 1 that executes the shell itself may lead one already.
        match nix::unistd::setsid() {
            Ok(_) | Err(nix::errno::Errno::EPERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
    };
    // SAFETY: between fork and exec it makes two system calls and nothing else: no memory, no lock.
    unsafe { command.pre_exec(prepare) };
}
