//! Handlers that block: Python's `BaseHTTPRequestHandler`, one value a connection.

use std::io;

use sanserve_core::Config;

use crate::exchange::Exchange;

/// Answers requests, in plain blocking code. One value serves one connection, on that connection's thread:
/// it is made with the first request (Python's `setup`) and dropped when the connection ends (`finish`).
///
/// Implement what you need; every other method is answered with `501 Unsupported method ('PUT')`. A closure
/// `FnMut(&mut Exchange<'_>) -> io::Result<()>` is a handler that gets every method.
///
/// What it returns settles the answer:
///
/// * `Ok`: a body that is not finished is finished. If nothing was answered at all, the peer gets a 500, and if
///   the body is shorter than its announced length, the connection is cut; both are logged.
/// * `Err`, or a panic: a 500 if nothing has gone out yet, else the connection is cut. It is logged with the
///   peer (Python's `handle_error`), unless it only says that the peer is gone or has broken the rules, which
///   the access log says already.
///
/// Nobody but the peer in question is affected. A request's body that was not read is dropped by the server.
///
/// ```
/// use std::io::{self, Read, Write};
/// use sanserve_std::{Exchange, Handler, StatusCode};
///
/// /// Counts the requests of its connection, and says how long a body was.
/// #[derive(Default)]
/// struct Counter(u32);
///
/// impl Handler for Counter {
///     fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
///         self.0 += 1;
///         x.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.send()?;
///         writeln!(x, "request {}", self.0)
///     }
///
///     fn do_post(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
///         let length = io::copy(x, &mut io::sink())?;
///         x.answer(StatusCode::OK, "text/plain", format!("{length} bytes\n"))
///     }
/// }
/// # let _: fn() -> Counter = Default::default;
/// ```
pub trait Handler {
    /// Answers a request: calls the method for it, unless you override this.
    ///
    /// # Errors
    /// Whatever keeps it from answering; see the trait.
    fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        match x.method() {
            b"GET" => self.do_get(x),
            b"HEAD" => self.do_head(x),
            b"POST" => self.do_post(x),
            _ => self.do_other(x),
        }
    }

    /// Answers a GET.
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.unsupported()
    }

    /// Answers a HEAD: as a GET, of which the body is dropped.
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_head(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self.do_get(x)
    }

    /// Answers a POST.
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_post(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.unsupported()
    }

    /// Answers any other method.
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_other(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.unsupported()
    }
}

impl<F: FnMut(&mut Exchange<'_>) -> io::Result<()>> Handler for F {
    fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self(x)
    }
}

/// The handlers of a server, and its rules with them.
pub(crate) struct Blocking {
    /// Makes one.
    pub(crate) make: Box<dyn Fn() -> Box<dyn Handler> + Send + Sync>,
    /// Those of the site, but that requests go to a handler.
    pub(crate) config: Config,
}

impl Blocking {
    pub(crate) fn new<H: Handler + 'static>(make: impl Fn() -> H + Send + Sync + 'static, config: &Config) -> Blocking {
        Blocking { make: Box::new(move || Box::new(make())), config: Config { handled: true, ..config.clone() } }
    }
}
