//! System calls that no crate wraps safely. The only file of the project that may contain `unsafe`.
#![allow(unsafe_code)]

use linux_raw_sys::ioctl::TIOCOUTQ;
use linux_raw_sys::loop_device::{LO_FLAGS_AUTOCLEAR, LO_FLAGS_READ_ONLY, LOOP_CONFIGURE, loop_config};
use nix::unistd::{ForkResult, Pid, fork as nix_fork};
use rustix::fs::{CWD, FileType, Mode, makedev, mkdirat, mknodat};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Setter, ioctl};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Functions that the C library calls before `main`, and so before the runtime of Rust.
#[used]
// SAFETY: the entry is a function of the type that this section holds (System V ABI, "Initialization and Termination Functions").
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = make_null_device;

/// Makes `/dev/null` for a process 1 without standard descriptors. The kernel gives it none if the machine has no console
/// (`console_on_rootfs`, init/main.c). The runtime of Rust then opens `/dev/null` in their place, and ends the program if there is no such
/// file: not every ramdisk has it. It makes two system calls on an ordinary machine, and needs no runtime.
extern "C" fn make_null_device() {
    if std::process::id() == 1 && rustix::io::fcntl_getfd(rustix::stdio::stdin()).is_err() {
        let made = mkdirat(CWD, c"/dev", Mode::from(0o755));
        let null = mknodat(CWD, c"/dev/null", FileType::CharacterDevice, Mode::from(0o666), makedev(1, 3));
        // Both may exist. There is nobody to tell about another error, and the runtime ends the program then.
        made.or(null).unwrap_or_default();
    }
}

/// Attaches the loop device `device`, read-only, to `size` bytes of `file` from `offset` on; the size 0 means the rest of the file. The
/// kernel frees the device when its last user closes it (autoclear).
///
/// `LOOP_CONFIGURE` (Linux 5.8, `man 4 loop`) is one call. The older pair `LOOP_SET_FD` and `LOOP_SET_STATUS64` freezes the queue in
/// between, which costs 15 to 20 ms.
///
/// # Errors
///
/// An error of ioctl(2); `EINVAL` or `ENOTTY` if the kernel lacks the call.
pub fn loop_configure(device: &impl AsRawFd, file: &impl AsRawFd, offset: u64, size: u64) -> rustix::io::Result<()> {
    // SAFETY: the struct has only numbers and arrays of numbers. Zeros are valid for them and mean the default block size.
    let mut config: loop_config = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    config.info.lo_offset = offset;
    config.info.lo_sizelimit = size;
    config.info.lo_flags = LO_FLAGS_READ_ONLY as u32 | LO_FLAGS_AUTOCLEAR as u32;
    // Through rustix instead of libc: the type of an ioctl's number differs between C libraries.
    // SAFETY: the device stays open as long as its owner is borrowed here; the kernel reads one loop_config and keeps no reference to it.
    unsafe { ioctl(BorrowedFd::borrow_raw(device.as_raw_fd()), Setter::<LOOP_CONFIGURE, _>::new(config)) }
}

/// The number of bytes that a terminal has not sent yet (`TIOCOUTQ`, `man 2 TIOCOUTQ`).
///
/// # Errors
///
/// An error of ioctl(2): the terminal does not know the number.
pub fn unsent(terminal: impl AsFd) -> rustix::io::Result<i32> {
    // SAFETY: the kernel writes one int.
    unsafe { ioctl(terminal, Getter::<{ TIOCOUTQ }, i32>::new()) }
}

/// Runs `run` in a child process, which then ends. The caller reaps it.
///
/// # Errors
///
/// An error of fork(2).
pub fn fork(run: &mut dyn FnMut()) -> nix::Result<Pid> {
    // SAFETY: process 1 has one thread, so no other thread holds a lock that the child could wait for. (In tests the C library keeps its
    // own locks usable in the child.)
    match unsafe { nix_fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            run();
            // SAFETY: the child ends without the handlers and buffers that it has from its parent.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Makes `command` the leader of a new session, with its standard input as the controlling terminal. Without it, a shell has no job
/// control and Ctrl-C has no effect.
pub fn in_own_session(command: &mut Command) {
    let prepare = || {
        // Process 1, if it executes the shell itself, may already lead a session.
        match nix::unistd::setsid() {
            Ok(_) | Err(nix::errno::Errno::EPERM) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
    };
    // SAFETY: between fork and exec it only makes two system calls. It allocates no memory and takes no lock.
    unsafe { command.pre_exec(prepare) };
}
