//! Executors that connections run on.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use smol::{Executor, LocalExecutor};

/// An executor that runs the tasks of connections, for [`Server::serve`](crate::Server::serve).
///
/// Besides [`Executor`] and [`LocalExecutor`], you can implement this for an executor of your own. Static executors are
/// an example:
///
/// ```
/// use std::future::Future;
/// use std::sync::OnceLock;
///
/// use sanserve_smol::{Server, Site, Spawn};
/// use smol::Executor;
///
/// static EXECUTOR: OnceLock<Executor<'static>> = OnceLock::new();
///
/// struct Global;
///
/// impl Spawn for Global {
///     fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
///         EXECUTOR.get_or_init(Executor::new).spawn(task).detach();
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let server = Server::bind("127.0.0.1:0", Site::without_files())?;
/// # server.handle().shutdown(); // or it would run for ever
/// smol::block_on(EXECUTOR.get_or_init(Executor::new).run(server.serve(&Global)))
/// # }
/// ```
pub trait Spawn {
    /// Runs `task` in the background until it has ended. The task catches its panics.
    fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static);
}

impl Spawn for Executor<'_> {
    fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        Executor::spawn(self, task).detach();
    }
}

impl Spawn for LocalExecutor<'_> {
    fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        LocalExecutor::spawn(self, task).detach();
    }
}

impl<T: Spawn> Spawn for &T {
    fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        T::spawn_detached(self, task);
    }
}

impl<T: Spawn> Spawn for Rc<T> {
    fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        T::spawn_detached(self, task);
    }
}

impl<T: Spawn> Spawn for Arc<T> {
    fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        T::spawn_detached(self, task);
    }
}
