//! Blocking handlers, like Python's `BaseHTTPRequestHandler`. Each connection has one of its own.

use std::io;

use sanserve_core::Request;

use crate::driver::{BlockingHandler, Line};
use crate::exchange::Exchange;

/// Responds to requests, in plain blocking code. A value serves one connection, on the thread of that connection. It
/// is made at the first request (Python's `setup`) and dropped when the connection ends (`finish`).
///
/// Implement the methods that you need; any other request gets the response `501 Unsupported method ('PUT')`. A
/// closure `FnMut(&mut Exchange<'_>) -> io::Result<()>` is a handler for all methods.
///
/// The returned value decides how the exchange ends:
///
/// * `Ok`: an unfinished body is finished. If the handler has not responded at all, the peer gets a 500, and if the
///   body is shorter than its announced length, the connection is cut; both are logged.
/// * `Err`, or a panic: the peer gets the status of the error (see [`HandlerError`](crate::HandlerError)), or a 500, if
///   nothing was sent yet, else the connection is cut. The reason is logged with the exchange (Python's
///   `handle_error`), except for errors that only mean that the peer has closed the
///   connection or broken the rules, since those are in the access log already.
///
/// Other peers are not affected. The server discards a request body that was not read.
///
/// ```
/// use std::io::{self, Read, Write};
/// use sanserve_std::{Exchange, Handler, StatusCode};
///
/// /// Counts the requests of its connection, and reports the length of a body.
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle requests",
    label = "not a `Handler`, nor a function `fn(&mut Exchange<'_>) -> io::Result<()>`",
    note = "annotate the parameter of a closure, `|x: &mut Exchange<'_>| ..`, and return `io::Result<()>`"
)]
pub trait Handler {
    /// Handles a request. The default calls the method for it.
    ///
    /// # Errors
    /// Anything that prevents the handler from responding; see the trait.
    fn handle(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        match x.method() {
            b"GET" => self.do_get(x),
            b"HEAD" => self.do_head(x),
            b"POST" => self.do_post(x),
            b"PUT" => self.do_put(x),
            b"PATCH" => self.do_patch(x),
            b"DELETE" => self.do_delete(x),
            b"OPTIONS" => self.do_options(x),
            _ => self.do_other(x),
        }
    }

    /// Handles a GET.
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.unsupported()
    }

    /// Handles a HEAD, by default like a GET, whose body is discarded.
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_head(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self.do_get(x)
    }

    /// Handles a POST.
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_post(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.unsupported()
    }

    /// Handles a PUT, by default like [any other method](Handler::do_other).
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_put(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self.do_other(x)
    }

    /// Handles a PATCH, by default like [any other method](Handler::do_other).
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_patch(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self.do_other(x)
    }

    /// Handles a DELETE, by default like [any other method](Handler::do_other).
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_delete(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self.do_other(x)
    }

    /// Handles an OPTIONS, by default like [any other method](Handler::do_other).
    ///
    /// # Errors
    /// As [`handle`](Handler::handle).
    fn do_options(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        self.do_other(x)
    }

    /// Handles any other method.
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

impl<H: Handler> BlockingHandler for H {
    fn handle(&mut self, line: &mut Line, request: Request<'_>) -> io::Result<()> {
        Handler::handle(self, &mut Exchange::new(line, request))
    }
}
