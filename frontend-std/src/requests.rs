//! A loop over requests, for programs that take one request after the other and respond from any thread.
//!
//! The thread of a connection still drives a request that was taken, and waits for its owner: each call of an
//! [`IncomingRequest`] is passed to that thread, which carries it out on the [`Exchange`] and returns the result.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sanserve_core::{Peer, Request, RequestBuf, ResponseHead, StatusCode};
use sanserve_server::{Draining, Handle, ListenAddr, Phase, Running, Upgraded};

use crate::exchange::Exchange;
use crate::handler::Handler;

/// The most bytes of a body that are passed between threads at once.
const PIECE: usize = 64 * 1024;

/// How often a thread checks, while the server shuts down, whether all connections are cut.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The requests of a server, from [`Server::requests`](crate::Server::requests): an iterator, which several threads can
/// share by reference.
///
/// Each request occupies the thread of its connection until it is answered, so the number of
/// [threads](crate::Server::workers) limits how many wait. Each takes about 30 KiB of memory: 1,000 requests without a
/// response take 30 MB.
///
/// Dropping it refuses the requests that were not taken, and shuts the server down gracefully: this blocks until the
/// requests that were taken are answered, for at most the grace period of the site.
///
/// ```no_run
/// use std::thread;
/// use sanserve_std::{Server, Site, StatusCode};
///
/// # fn main() -> std::io::Result<()> {
/// let requests = Server::bind("127.0.0.1:8000", Site::without_files())?.requests()?;
/// // Four threads take requests.
/// thread::scope(|scope| {
///     for _ in 0..4 {
///         scope.spawn(|| {
///             for request in &requests {
///                 // A client that has gone is no reason to stop.
///                 let _ = request.answer(StatusCode::OK, "text/plain", "hello\n");
///             }
///         });
///     }
/// });
/// requests.shutdown()
/// # }
/// ```
pub struct Requests {
    queue: Arc<Queue>,
    running: Option<Running>,
    addresses: Vec<ListenAddr>,
    handle: Handle,
}

impl Requests {
    /// The requests that a server in the background puts into `queue`.
    pub(crate) fn new(queue: Arc<Queue>, running: Running) -> Requests {
        let (addresses, handle) = (running.addresses().to_vec(), running.handle());
        Requests { queue, running: Some(running), addresses, handle }
    }

    /// Waits for a request. `None`: the server has ended, or this call was [unblocked](Self::unblock).
    pub fn recv(&self) -> Option<IncomingRequest> {
        self.queue.next(None)
    }

    /// Like [`recv`](Self::recv), for at most `timeout`.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<IncomingRequest> {
        // A time that the clock cannot express is the same as none.
        self.queue.next(Instant::now().checked_add(timeout))
    }

    /// A request that has already arrived, if there is one.
    pub fn try_recv(&self) -> Option<IncomingRequest> {
        self.recv_timeout(Duration::ZERO)
    }

    /// Makes one call of [`recv`](Self::recv) return `None`, or one iteration end: one that waits, or the next. The
    /// server continues.
    pub fn unblock(&self) {
        self.queue.lock().unblocks += 1;
        self.queue.changed.notify_one();
    }

    /// How many requests have arrived and were not taken yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Whether the server has ended, so that no further request will arrive.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let state = self.queue.lock();
        state.has_ended && state.waiting.is_empty()
    }

    /// The bound address, with the actual port; if there are several, the first.
    ///
    /// # Panics
    /// If the server listens only on Unix sockets. See [`addresses`](Self::addresses).
    #[must_use]
    #[track_caller]
    pub fn local_addr(&self) -> SocketAddr {
        sanserve_server::first_ip(&self.addresses)
    }

    /// The addresses of all listeners.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// A handle to shut the server down. The iteration ends when the server has ended.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Shuts the server down gracefully, like dropping, and returns its error if it has failed.
    ///
    /// # Errors
    /// As [`Server::run`](crate::Server::run).
    pub fn shutdown(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.queue.end();
        self.running.take().map_or(Ok(()), Running::shutdown)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // There is no one to report a failure to.
        let _ = self.end();
    }
}

impl Iterator for Requests {
    type Item = IncomingRequest;

    fn next(&mut self) -> Option<IncomingRequest> {
        self.recv()
    }
}

impl<'r> IntoIterator for &'r Requests {
    type Item = IncomingRequest;
    type IntoIter = RequestsIter<'r>;

    fn into_iter(self) -> RequestsIter<'r> {
        RequestsIter(self)
    }
}

/// An iterator over the requests of shared [`Requests`].
#[derive(Debug)]
pub struct RequestsIter<'r>(&'r Requests);

impl Iterator for RequestsIter<'_> {
    type Item = IncomingRequest;

    fn next(&mut self) -> Option<IncomingRequest> {
        self.0.recv()
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// The requests that were not taken yet. Each occupies a thread, so there are no more of them than threads.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    waiting: VecDeque<IncomingRequest>,
    unblocks: usize,
    has_ended: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, until: Option<Instant>) -> Option<IncomingRequest> {
        let mut state = self.lock();
        loop {
            if state.unblocks > 0 {
                state.unblocks -= 1;
                return None;
            }
            if let Some(request) = state.waiting.pop_front() {
                return Some(request);
            }
            if state.has_ended {
                return None;
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Adds a request. `false`: no further request will be taken, and this one was dropped.
    fn push(&self, request: IncomingRequest) -> bool {
        let mut state = self.lock();
        if state.has_ended {
            return false;
        }
        state.waiting.push_back(request);
        self.changed.notify_one();
        true
    }

    /// Closes the queue: no request is added or taken any more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        let refused = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        for request in refused {
            // The connection may be gone.
            let _ = request.error(StatusCode::SERVICE_UNAVAILABLE, None);
        }
    }
}

/// The handler that puts requests into the queue, and carries out the calls of their owners.
pub(crate) struct Pulled(pub(crate) Arc<Queue>);

impl Handler for Pulled {
    fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        let line = Arc::new(Line::default());
        let over = EndOnDrop(Arc::clone(&line));
        let draining = x.draining();
        // So that a cut ends the wait below.
        let _watch = draining.when_begun({
            let line = Arc::clone(&line);
            move || line.wake()
        });
        if !self.0.push(IncomingRequest { request: x.request().to_buf(), line: Arc::clone(&line) }) {
            return x.error(StatusCode::SERVICE_UNAVAILABLE, None, None);
        }
        let mut is_done = true;
        while let Some(job) = line.next_job(&draining)? {
            if x.is_draining() {
                // This thread was waiting, so the connection has not noticed the cut.
                x.close();
            }
            is_done = job(x);
        }
        if !is_done && x.is_answering() {
            // The owner got the error. A body that is incomplete must not look complete.
            x.abort();
        }
        drop(over);
        Ok(())
    }
}

/// A call of the owner of a request. Returns whether it succeeded.
type Job = Box<dyn FnOnce(&mut Exchange<'_>) -> bool + Send>;

/// The state that the owner of a request and the thread of its connection share.
#[derive(Default)]
struct Line {
    state: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    job: Option<Job>,
    /// The owner has dropped the request.
    is_released: bool,
    /// The exchange has ended.
    is_over: bool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the thread of the connection check the phase of the server.
    fn wake(&self) {
        // The lock ensures that the thread is not between reading the phase and beginning to wait.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Waits for the next call. `None`: the owner has dropped the request.
    fn next_job(&self, draining: &Draining) -> io::Result<Option<Job>> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.job.take() {
                return Ok(Some(job));
            }
            if state.is_released {
                return Ok(None);
            }
            state = match draining.phase() {
                Phase::Cut => return Err(ended()),
                Phase::Draining => {
                    self.changed.wait_timeout(state, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner).0
                }
                _ => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Marks the exchange as ended, even if a job panics.
struct EndOnDrop(Arc<Line>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_over = true;
        // The owner may be waiting for a result, and learns that there will be none.
        let job = state.job.take();
        drop(state);
        drop(job);
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the exchange has ended")
}

/// A request that you own, from [`Requests`]. It can be kept, moved to another thread and answered there.
///
/// [`Read`] returns its body, as it arrives. If it is dropped without a response, the client gets a 500. If the client
/// disconnects, that is noticed when the response is sent. Each call waits for the thread of the connection, which takes a
/// few microseconds; [`with_exchange`](Self::with_exchange) runs a whole function there.
///
/// ```no_run
/// use sanserve_std::{Server, Site, StatusCode};
///
/// # fn main() -> std::io::Result<()> {
/// for request in Server::bind("127.0.0.1:8000", Site::without_files())?.requests()? {
///     let text = format!("{}\n", String::from_utf8_lossy(request.path()));
///     // An error of one client does not end the loop.
///     let _ = request.answer(StatusCode::OK, "text/plain", text);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it responds with 500"]
pub struct IncomingRequest {
    request: RequestBuf,
    line: Arc<Line>,
}

impl IncomingRequest {
    /// The request, with its complete head.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        self.request.as_request()
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.request().method()
    }

    /// The target: path and query, not decoded.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.request().target()
    }

    /// The path of the target, without query, not decoded.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.request().path()
    }

    /// The query without the `?`, not decoded; `None` if there is none.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.request().query()
    }

    /// The value of the first field with that name, ignoring case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.request().field(name)
    }

    /// The address of the client.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.request().peer()
    }

    /// Responds with a complete body.
    ///
    /// # Errors
    /// As [`Exchange::answer`]; [`io::ErrorKind::ConnectionAborted`] if the exchange has ended. Success does not mean that
    /// the client has received the response.
    pub fn answer(self, status: StatusCode, media_type: &str, body: impl Into<Vec<u8>>) -> io::Result<()> {
        let (media_type, body) = (media_type.to_owned(), body.into());
        self.call(move |x| x.answer(status, &media_type, body))
    }

    /// Responds with an error page. `None` stands for the usual message of the status.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn error(self, status: StatusCode, message: Option<&str>) -> io::Result<()> {
        let message = message.map(str::to_owned);
        self.call(move |x| x.error(status, message.as_deref(), None))
    }

    /// Begins a response with fields.
    pub fn respond(self, status: StatusCode) -> PendingResponse {
        PendingResponse { request: self, head: ResponseHead::new(status) }
    }

    /// Lets the site respond with a file or a script.
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn decline(self) -> io::Result<()> {
        self.call(|x| x.decline())
    }

    /// Responds with 101 and takes over the connection, as [`Exchange::upgrade`].
    ///
    /// # Errors
    /// As [`Exchange::upgrade`].
    pub fn upgrade(self, protocol: &str, fields: &[(&str, &str)]) -> io::Result<Upgraded> {
        let protocol = protocol.to_owned();
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.call(move |x| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            x.upgrade(&protocol, &fields)
        })
    }

    /// Calls `act` with the exchange, on the thread of the connection, and waits for its result. If it panics, the
    /// client gets a 500, or the connection is cut. If it fails after a response has begun, and no later call on this
    /// request succeeds, the connection is cut when the request is dropped, so that the body does not look complete.
    ///
    /// # Errors
    /// Those of `act`, and [`io::ErrorKind::ConnectionAborted`] if the exchange has ended.
    pub fn with_exchange<R, F>(&mut self, act: F) -> io::Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Exchange<'_>) -> io::Result<R> + Send + 'static,
    {
        self.call(act)
    }

    fn call<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Exchange<'_>) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        let (sender, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |x| {
            let outcome = act(x);
            let is_done = outcome.is_ok();
            // The owner waits for the result.
            let _ = sender.send(outcome);
            is_done
        });
        let mut state = self.line.lock();
        if state.is_over {
            return Err(ended());
        }
        state.job = Some(job);
        drop(state);
        self.line.changed.notify_all();
        result.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Read for IncomingRequest {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(PIECE);
        let read = self.call(move |x| {
            let mut piece = vec![0; most];
            let n = x.read(&mut piece)?;
            piece.truncate(n);
            Ok(piece)
        })?;
        into[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }
}

impl Drop for IncomingRequest {
    fn drop(&mut self) {
        self.line.lock().is_released = true;
        self.line.changed.notify_all();
    }
}

impl fmt::Debug for IncomingRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingRequest").field("request", &self.request()).finish_non_exhaustive()
    }
}

/// A response to an [`IncomingRequest`], whose head is being written. Each part is checked immediately. If it is dropped,
/// the client gets a 500.
///
/// ```
/// use std::{fs::File, io};
/// use sanserve_std::{IncomingRequest, StatusCode};
///
/// fn download(request: IncomingRequest) -> io::Result<()> {
///     let response = request.respond(StatusCode::OK).field("Content-Type", "application/pdf")?;
///     response.field("Content-Disposition", "attachment")?.file(File::open("manual.pdf")?)
/// }
/// # let _: fn(IncomingRequest) -> io::Result<()> = download;
/// ```
#[must_use = "nothing is sent before its body"]
#[derive(Debug)]
pub struct PendingResponse {
    request: IncomingRequest,
    head: ResponseHead,
}

impl PendingResponse {
    /// Adds a field.
    ///
    /// # Errors
    /// As [`ResponseHead::field`].
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> io::Result<PendingResponse> {
        Ok(PendingResponse { head: self.head.field(name, value)?, ..self })
    }

    /// Announces the length of a body that is [written](Self::writer) in parts. Without it, that body is chunked, or ends
    /// with the connection for HTTP/1.0.
    pub fn length(self, length: u64) -> PendingResponse {
        PendingResponse { head: self.head.length(length), ..self }
    }

    /// Responds with a complete body. Its length is announced.
    ///
    /// # Errors
    /// As [`Exchange::send_response`], and [`IncomingRequest::answer`].
    pub fn body(self, body: impl Into<Vec<u8>>) -> io::Result<()> {
        let (head, body) = (self.head, body.into());
        self.request.call(move |x| x.send_response(&head, body))
    }

    /// Responds with a whole file, without copying it (`sendfile`). Its length is announced.
    ///
    /// # Errors
    /// As [`Exchange::send_file`], and [`IncomingRequest::answer`].
    pub fn file(self, file: File) -> io::Result<()> {
        let length = file.metadata()?.len();
        let head = self.head.length(length);
        self.request.call(move |x| {
            x.send_head(&head)?;
            x.send_file(&file, 0..length)
        })
    }

    /// Ends the head, and returns a writer for the body.
    ///
    /// # Errors
    /// As [`Exchange::send_head`], and [`IncomingRequest::answer`].
    pub fn writer(self) -> io::Result<ResponseWriter> {
        let head = self.head;
        self.request.call(move |x| x.send_head(&head))?;
        Ok(ResponseWriter { request: self.request, buffer: Vec::new() })
    }
}

/// Writes the body of a response to an [`IncomingRequest`], with a buffer of 64 KiB. Dropping it ends the body, unless
/// the thread panics: the connection is then cut, so that the body does not look complete. It is also cut if a length
/// was announced and not reached.
///
/// ```
/// use std::io::{self, Write};
/// use sanserve_std::{IncomingRequest, StatusCode};
///
/// fn count(request: IncomingRequest) -> io::Result<()> {
///     let mut writer = request.respond(StatusCode::OK).field("Content-Type", "text/plain")?.writer()?;
///     (0..1_000).try_for_each(|n| writeln!(writer, "{n}"))?;
///     writer.finish()
/// }
/// # let _: fn(IncomingRequest) -> io::Result<()> = count;
/// ```
#[derive(Debug)]
pub struct ResponseWriter {
    request: IncomingRequest,
    buffer: Vec<u8>,
}

impl ResponseWriter {
    /// Ends the body. Dropping it does so too, but reports no errors.
    ///
    /// # Errors
    /// As [`Exchange::finish`], and [`IncomingRequest::answer`].
    pub fn finish(mut self) -> io::Result<()> {
        self.pass_on()?;
        self.request.call(|x| x.finish())
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.buffer);
        self.request.call(move |x| x.write_all(&piece))
    }
}

impl Write for ResponseWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = data.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&data[..n]);
        if self.buffer.len() == PIECE {
            self.pass_on()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.request.call(|x| x.flush())
    }
}

impl Drop for ResponseWriter {
    fn drop(&mut self) {
        // Errors are logged by the server.
        let _ = if thread::panicking() {
            self.request.call(|x| {
                x.abort();
                Ok(())
            })
        } else {
            self.pass_on()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stop just after the thread of a connection has read the phase, and before it waits.
    #[test]
    fn no_stop_is_missed() {
        let (line, draining) = (Arc::new(Line::default()), Draining::default());
        let state = line.lock();
        assert_eq!(draining.phase(), Phase::Running);
        let watch = draining.when_begun({
            let line = Arc::clone(&line);
            move || line.wake()
        });
        let stops = thread::spawn({
            let draining = draining.clone();
            move || draining.enter(Phase::Cut)
        });
        while draining.phase() != Phase::Cut {
            thread::yield_now();
        }
        for _ in 0..1_000 {
            thread::yield_now();
            assert!(!stops.is_finished(), "nobody waits yet");
        }
        drop(line.changed.wait(state).unwrap());
        assert!(stops.join().unwrap());
        assert_eq!(line.next_job(&draining).err().map(|error| error.kind()), Some(io::ErrorKind::ConnectionAborted));
        drop(watch);
    }
}
