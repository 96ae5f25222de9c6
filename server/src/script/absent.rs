//! Scripts in a build without the feature `cgi`: none is run.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustix::fd::BorrowedFd;
use sanserve_core::{Input, Script, SpawnError, Window};
use sanserve_os::Root;

use crate::log::Log;
use crate::script_io::{ScriptFds, ScriptRead};

/// The scripts of a server. There are none.
#[derive(Debug)]
pub struct Scripts {
    root: Arc<Root>,
}

impl Scripts {
    pub(crate) fn beneath(root: Arc<Root>) -> Scripts {
        Scripts { root }
    }

    pub(crate) fn for_another_server(&self) -> Scripts {
        Scripts { root: Arc::clone(&self.root) }
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Has no effect.
    pub fn end(&self) {}

    pub(crate) fn descriptors(&self) -> usize {
        0
    }

    pub(crate) fn spool(&self) -> io::Result<Spool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn write_spool(&self, spool: &mut Spool, _: &[u8]) -> Option<io::Result<usize>> {
        match spool.0 {}
    }

    pub(crate) fn spawn(
        &self,
        _: &Script<'_>,
        _: Option<Spool>,
        _: Option<IpAddr>,
        _: &Log,
    ) -> Result<Running, SpawnError> {
        Err(SpawnError::Failed)
    }

    pub(crate) fn kill(&self, running: &Running) {
        match running.0 {}
    }
}

/// The body of a request for a script. There is none.
#[derive(Debug)]
pub(crate) struct Spool(Infallible);

/// A running script. There is none.
#[derive(Debug)]
pub(crate) struct Running(Infallible);

impl Running {
    pub(crate) fn read(&mut self, _: &mut Window) -> ScriptRead {
        match self.0 {}
    }

    pub(crate) fn feed(&mut self, _: &[u8]) -> Input {
        match self.0 {}
    }

    pub(crate) fn end_input(&mut self) {
        match self.0 {}
    }

    pub(crate) fn fds(&self) -> ScriptFds<'_> {
        match self.0 {}
    }
}

pub(crate) fn local_address(_: BorrowedFd<'_>) -> Option<IpAddr> {
    None
}
