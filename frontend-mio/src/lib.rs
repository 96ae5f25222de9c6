//! sanserve on a mio event loop: one loop a worker, each with a listener of its own.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! let service = sanserve_os::Service::new(".")?;
//! sanserve_mio::Server::bind(([127, 0, 0, 1], 8000).into(), service)?.run()
//! # }
//! ```
//!
//! What it leaves out: all policy, which is the core's, and all system calls on files and sockets,
//! which are `sanserve-os`'s. It only waits, and calls handlers. A handler that blocks, blocks its
//! whole loop.

mod deadlines;
mod event_loop;
mod pool;
mod script;
mod slab;
mod turn;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;

use mio::Waker;
use sanserve_os::{Service, bind_many};

use event_loop::EventLoop;

/// Workers by default: as many as there are processors, but no more than suffice to fill a network.
const MOST_WORKERS: usize = 4;

/// A server that is bound and not yet running.
pub struct Server {
    address: SocketAddr,
    loops: Vec<EventLoop>,
    handle: Handle,
}

impl Server {
    /// Binds with one worker for each processor, four at most.
    ///
    /// # Errors
    /// As the system says, such as an address in use.
    pub fn bind(address: SocketAddr, service: Service) -> io::Result<Server> {
        let workers = thread::available_parallelism().map_or(1, |n| n.get().min(MOST_WORKERS));
        Server::bind_with(address, service, workers)
    }

    /// Binds with so many workers, at least one. Several share the address by `SO_REUSEPORT`.
    ///
    /// # Errors
    /// As the system says, such as an address in use.
    pub fn bind_with(address: SocketAddr, service: Service, workers: usize) -> io::Result<Server> {
        Server::from_listeners(bind_many(address, workers.max(1))?, service)
    }

    /// Runs on a listener that is bound already, with one worker.
    ///
    /// # Errors
    /// As the system says.
    pub fn from_listener(listener: TcpListener, service: Service) -> io::Result<Server> {
        Server::from_listeners(vec![listener], service)
    }

    fn from_listeners(listeners: Vec<TcpListener>, service: Service) -> io::Result<Server> {
        let address = listeners[0].local_addr()?;
        let places = Arc::new(Places::new(service.connection_bound()));
        let service = Arc::new(service.bound_to(address));
        let stage = Arc::new(Stage::default());
        let loops = listeners
            .into_iter()
            .map(|listener| EventLoop::new(listener, Arc::clone(&service), Arc::clone(&stage), Arc::clone(&places)))
            .collect::<io::Result<Vec<_>>>()?;
        let wakers = loops.iter().map(EventLoop::waker).collect::<io::Result<Vec<_>>>()?;
        Ok(Server { address, loops, handle: Handle { stage, wakers: wakers.into() } })
    }

    /// The address that it is bound to, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Something to shut it down with, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until it is shut down and every connection has ended.
    ///
    /// # Errors
    /// If the system refuses to wait or to start a thread; the other workers are then stopped.
    pub fn run(self) -> io::Result<()> {
        let Server { mut loops, handle, .. } = self;
        let own = loops.remove(0);
        let mut others = Vec::new();
        for (n, event_loop) in (2..).zip(loops) {
            let stop_all = StopAll(handle.clone());
            let worker = thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
                let result = event_loop.run();
                if result.is_ok() {
                    std::mem::forget(stop_all);
                }
                result
            });
            match worker {
                Ok(worker) => others.push(worker),
                Err(error) => {
                    handle.stop();
                    return Err(error);
                }
            }
        }
        let mut result = own.run();
        if result.is_err() {
            handle.stop();
        }
        for other in others {
            let ended = other.join().unwrap_or_else(|_| Err(io::Error::other("a worker failed")));
            result = result.and(ended);
        }
        result
    }
}

/// Stops all workers when one fails: half a server is none.
struct StopAll(Handle);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).field("workers", &self.loops.len()).finish()
    }
}

/// Shuts a server down, from any thread.
#[derive(Clone)]
pub struct Handle {
    stage: Arc<Stage>,
    wakers: Arc<[Waker]>,
}

impl Handle {
    /// Accepts nothing more, finishes the exchanges in hand, and cuts what is left when
    /// `service.grace` has passed.
    pub fn shutdown(&self) {
        self.enter(Stage::DRAINING);
    }

    /// Cuts every connection now.
    pub fn stop(&self) {
        self.enter(Stage::CUT);
    }

    fn enter(&self, stage: u8) {
        self.stage.0.fetch_max(stage, Ordering::SeqCst);
        for waker in &*self.wakers {
            // It fails only if the loop is gone, which is what was wanted.
            let _ = waker.wake();
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// How far the server has gone down.
#[derive(Debug, Default)]
struct Stage(AtomicU8);

impl Stage {
    const DRAINING: u8 = 1;
    const CUT: u8 = 2;

    fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) >= Stage::DRAINING
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire) >= Stage::CUT
    }
}

/// The places of all connections of a server. A worker takes one before it accepts and gives it
/// back when the connection has closed; requests do not come here.
#[derive(Debug)]
struct Places {
    most: usize,
    taken: AtomicUsize,
    /// Workers with clients at the door and no place for them.
    waiting: AtomicUsize,
}

impl Places {
    fn new(most: usize) -> Places {
        Places { most, taken: AtomicUsize::new(0), waiting: AtomicUsize::new(0) }
    }

    /// Takes a place, if there is one.
    fn take(&self) -> bool {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_places_than_there_are() {
        let places = Places::new(2);
        assert_eq!([places.take(), places.take(), places.take(), places.take()], [true, true, false, false]);
        places.give_back();
        assert_eq!([places.take(), places.take()], [true, false]);
    }
}
