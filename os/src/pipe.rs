//! Pipes.

use std::io;
use std::os::fd::OwnedFd;

/// Makes a pipe: the end that is read, and the one that is written. A program that is started inherits neither.
///
/// # Errors
/// There are no more descriptors.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(not(target_vendor = "apple"))]
    return Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?);
    // It has no call that does both.
    #[cfg(target_vendor = "apple")]
    {
        let (reads, writes) = rustix::pipe::pipe()?;
        rustix::io::fcntl_setfd(&reads, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&writes, rustix::io::FdFlags::CLOEXEC)?;
        Ok((reads, writes))
    }
}
