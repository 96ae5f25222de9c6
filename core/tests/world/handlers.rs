//! Handlers below `/h/`, which read bodies, wait, echo and misbehave.

use std::borrow::Cow;
use std::task::Waker;

use sanserve_core::{Call, Handler, HandlerError, Policy, Received, Reply, Request, Route, StatusCode};

/// Routes `/h/..` to the handler, and everything else to files.
#[derive(Debug)]
pub struct Routed;

impl Policy for Routed {
    fn route(&self, request: &Request<'_>) -> Route {
        if request.path().starts_with(b"/h/") { Route::Handler } else { Route::Files }
    }

    fn media_type(&self, _: &[u8]) -> Cow<'static, str> {
        Cow::Borrowed("application/x-test")
    }
}

/// The length of the response of `/h/big`.
pub const BIG: usize = 30_000;

/// The behavior of a target below `/h/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// Reads the whole body, then echoes it with its length.
    #[default]
    Echo,
    /// Echoes the body while it arrives, without a length.
    Stream,
    /// Responds when it is woken.
    Late,
    /// Announces more than it sends.
    Short,
    /// Declines, so that files respond.
    Pass,
    /// Does not read the body, and sends [`BIG`] bytes.
    Big,
}

/// The handler of one connection.
#[derive(Debug, Default)]
pub struct Echo {
    kind: Kind,
    body: Vec<u8>,
    written: usize,
    begun: bool,
    passed: bool,
    /// Kept while it waits.
    waker: Option<Waker>,
    /// Whether it was called with `Request` and not yet with `Over`.
    pub open: bool,
}

impl Handler for Echo {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        match call {
            Call::Over => {
                assert!(self.open || self.passed, "over without a request");
                *self = Echo::default();
                return Ok(());
            }
            Call::Request => {
                assert!(!self.open, "a request before the end of the last one");
                self.open = true;
                self.kind = match reply.request().path() {
                    b"/h/stream" => Kind::Stream,
                    b"/h/late" => {
                        self.waker = Some(reply.waker());
                        Kind::Late
                    }
                    b"/h/short" => Kind::Short,
                    b"/h/pass" => Kind::Pass,
                    b"/h/big" => Kind::Big,
                    _ => Kind::Echo,
                };
            }
            Call::Drain => {
                assert!(self.open && reply.is_draining(), "called with Drain without a request, or without draining");
                return Ok(());
            }
            Call::Body | Call::Room => assert!(self.open, "{call:?} without a request"),
            Call::Wake if self.kind == Kind::Late && !self.begun => {
                self.begun = true;
                self.body = b"late".to_vec();
                self.begin(reply, true);
            }
            Call::Wake => {}
        }
        match self.kind {
            Kind::Echo => self.echo(reply),
            Kind::Stream => self.stream(reply),
            Kind::Late if self.begun => self.write_rest(reply),
            Kind::Late => {}
            Kind::Short => {
                let is_head = reply.request().method() == b"HEAD";
                if let Ok(head) = reply.respond(StatusCode::OK) {
                    head.length(10).send().expect("a head");
                    _ = reply.write(b"four");
                    assert_eq!(reply.finish().is_ok(), is_head, "a short body is not an error");
                }
            }
            Kind::Pass => {
                // Whether it is called with `Over` then is not defined.
                self.open = false;
                self.passed = true;
                _ = reply.decline();
            }
            Kind::Big => {
                if !std::mem::replace(&mut self.begun, true) {
                    self.body = vec![b'B'; BIG];
                    self.begin(reply, false);
                }
                self.write_rest(reply);
            }
        }
        Ok(())
    }
}

impl Echo {
    fn echo(&mut self, reply: &mut Reply<'_>) {
        while !self.begun {
            let data = match reply.receive() {
                Received::Data(data) => data.to_vec(),
                Received::Pending | Received::Broken => return,
                Received::End => {
                    self.begun = true;
                    self.begin(reply, true);
                    break;
                }
            };
            self.body.extend_from_slice(&data);
            reply.consume(data.len());
        }
        self.write_rest(reply);
    }

    fn stream(&mut self, reply: &mut Reply<'_>) {
        if !std::mem::replace(&mut self.begun, true) {
            self.begin(reply, false);
        }
        loop {
            let data = match reply.receive() {
                Received::Data(data) => data.to_vec(),
                Received::Pending | Received::Broken => return,
                Received::End => {
                    _ = reply.finish();
                    return;
                }
            };
            let Ok(taken) = reply.write(&data) else { return };
            reply.consume(taken);
            if taken < data.len() {
                return;
            }
        }
    }

    fn begin(&mut self, reply: &mut Reply<'_>, with_length: bool) {
        if let Ok(head) = reply.respond(StatusCode::OK) {
            let head = head.field("X-Handler", "yes").expect("a field");
            let head = if with_length { head.length(self.body.len() as u64) } else { head };
            head.send().expect("a head");
        }
    }

    fn write_rest(&mut self, reply: &mut Reply<'_>) {
        while self.written < self.body.len() {
            match reply.write(&self.body[self.written..]) {
                Ok(0) | Err(_) => return,
                Ok(n) => self.written += n,
            }
        }
        _ = reply.finish();
    }
}
