//! Creating pipes.

use std::io;
use std::os::fd::OwnedFd;

/// Creates a pipe, and returns the end to read from and the end to write to. Both are closed on exec.
///
/// # Errors
/// If the system is out of descriptors.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(not(target_vendor = "apple"))]
    return Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?);
    // This system has no `pipe2`.
    #[cfg(target_vendor = "apple")]
    {
        let (reads, writes) = rustix::pipe::pipe()?;
        rustix::io::fcntl_setfd(&reads, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&writes, rustix::io::FdFlags::CLOEXEC)?;
        Ok((reads, writes))
    }
}
