//! What the server of a simulation serves, and what its clients request: files, directories, and a handler under
//! `/h/` that reads bodies, streams, waits and sends files, so that every part of the core is exercised.

use sanserve_core::{
    Call, EntryKind, FsError, Handler, HandlerError, Misuse, Policy, Received, Reply, Request, Route, StatusCode,
};
use sanserve_testing::{Disk, File, Node, Random, Server};

/// The name of this site in the transcripts of `sim`.
pub(crate) const NAME: &str = "sim";

/// The length of the response to `/h/big`, in bytes.
const BIG: usize = 200_000;

/// Malformed requests.
const BAD: &[&str] = &[
    "GET /a.txt HTTP/1.1\nHost: x\n\n",
    "GET /a.txt HTTP/1.1\r\n\r\n",
    "GET /a.txt HTTP/3.0\r\nHost: x\r\n\r\n",
    "GET /a.txt HTTP/1.1\r\nHost: x\r\n fold: y\r\n\r\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
    "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: magic\r\n\r\nhello",
    "\0\0\0\0",
];

/// Targets of files, directories and handlers.
const TARGETS: &[&str] = &[
    "/", "/a.txt", "/a.txt", "/empty", "/mid.bin", "/mid.bin", "/big.bin", "/docs", "/docs/", "/site/", "/many/",
    "/none", "/denied", "/busy", "/h/big", "/h/late", "/h/file", "/h/none",
];

/// Fields for ranges and conditions.
const FIELDS: &[&str] = &[
    "",
    "",
    "",
    "",
    "Range: bytes=3-40\r\n",
    "Range: bytes=0-0,9-12,-3\r\n",
    "Range: bytes=9999999-\r\n",
    "If-None-Match: *\r\n",
    "If-Match: \"x\"\r\n",
    "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
    "Connection: close\r\n",
];

pub(super) fn server() -> Server<'static> {
    let many = (0..250).map(|n| (format!("file {n}").into_bytes(), EntryKind::File)).collect();
    let disk = Disk::new()
        .file("a.txt", "hello\n")
        .file("empty", "")
        .with("mid.bin", Node::File(File::new(1, 3_000)))
        .with("big.bin", Node::File(File::new(2, 1_000_000)))
        .file("docs/one.html", "<p>one")
        .file("docs/two & more.txt", "two")
        .file("site/index.html", "<p>index")
        .with("many", Node::Directory(many))
        .fails("denied", FsError::Denied)
        .fails("busy", FsError::Exhausted);
    Server::new().disk(disk).policy(Routed).handler(Busy::default).named(NAME)
}

/// One random request of a client.
pub(super) fn request(random: &mut Random) -> Vec<u8> {
    if random.one_in(40) {
        return random.pick(BAD).as_bytes().to_vec();
    }
    if random.one_in(4) {
        return with_body(random);
    }
    let method = random.pick(&["GET", "GET", "GET", "GET", "HEAD", "OPTIONS", "DELETE"]);
    let (target, fields) = (random.pick(TARGETS), random.pick(FIELDS));
    let version = if random.one_in(16) { "1.0" } else { "1.1" };
    format!("{method} {target} HTTP/{version}\r\nHost: x\r\n{fields}\r\n").into_bytes()
}

/// A request with a body, with a length or chunked.
fn with_body(random: &mut Random) -> Vec<u8> {
    let target = random.pick(&["/h/echo", "/h/echo", "/h/stream", "/h/stream", "/h/none", "/a.txt"]);
    let expect = if random.one_in(8) { "Expect: 100-continue\r\n" } else { "" };
    let size = random.size(20_000);
    let body = random.bytes(size);
    let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{expect}");
    if random.one_in(2) {
        return [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    }
    let mut text = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let chunk = usize::try_from(random.size(6_000)).expect("small");
    for data in body.chunks(chunk) {
        text.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        text.extend_from_slice(data);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

/// Routes `/h/` to the handler, and everything else to the files.
pub(crate) struct Routed;

impl Policy for Routed {
    fn route(&self, request: &Request<'_>) -> Route {
        if request.path().starts_with(b"/h/") { Route::Handler } else { Route::Files }
    }
}

/// What the handler does for a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Task {
    /// Nothing more.
    #[default]
    None,
    /// Reads the body, then sends it back with its length.
    Echo,
    /// Sends the body back while it arrives.
    Stream,
    /// Responds when it is woken.
    Late,
    /// Sends [`BIG`] bytes.
    Big,
}

/// The handler of one connection.
#[derive(Default)]
pub(crate) struct Busy {
    task: Task,
    body: Vec<u8>,
    given: usize,
    waker: Option<std::task::Waker>,
}

impl Handler for Busy {
    fn call(&mut self, call: Call, reply: &mut Reply<'_>) -> Result<(), HandlerError> {
        let outcome = match call {
            Call::Over => {
                *self = Busy::default();
                Ok(())
            }
            Call::Request => self.begin(reply),
            Call::Wake if self.task == Task::Late => {
                self.waker = None;
                self.task = Task::None;
                reply.answer(StatusCode::OK, "text/plain", "late\n")
            }
            Call::Body | Call::Room | Call::Wake => self.go_on(reply),
            Call::Drain => Ok(()),
        };
        Ok(outcome?)
    }
}

impl Busy {
    fn begin(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        self.task = match reply.request().path() {
            b"/h/echo" => Task::Echo,
            b"/h/stream" => Task::Stream,
            b"/h/late" => {
                self.waker = Some(reply.waker());
                Task::Late
            }
            b"/h/big" => {
                self.body = vec![b'B'; BIG];
                Task::Big
            }
            b"/h/file" => return send_file(reply),
            _ => return reply.error(StatusCode::NOT_FOUND, None, None),
        };
        match self.task {
            Task::Stream => reply.respond(StatusCode::OK)?.send()?,
            Task::Big => reply.respond(StatusCode::OK)?.length(BIG as u64).send()?,
            _ => {}
        }
        self.go_on(reply)
    }

    fn go_on(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        match self.task {
            Task::None | Task::Late => Ok(()),
            Task::Echo => self.collect(reply),
            Task::Stream => stream(reply),
            Task::Big => self.give(reply),
        }
    }

    fn collect(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        loop {
            match reply.receive() {
                Received::Data(data) => {
                    self.body.extend_from_slice(data);
                    let n = data.len();
                    reply.consume(n);
                }
                Received::Pending | Received::Broken => return Ok(()),
                Received::End => break,
            }
        }
        self.task = Task::Big;
        reply.respond(StatusCode::OK)?.length(self.body.len() as u64).send()?;
        self.give(reply)
    }

    fn give(&mut self, reply: &mut Reply<'_>) -> Result<(), Misuse> {
        while self.given < self.body.len() {
            match reply.write(&self.body[self.given..])? {
                0 => return Ok(()),
                n => self.given += n,
            }
        }
        self.task = Task::None;
        reply.finish()
    }
}

fn stream(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    loop {
        let data = match reply.receive() {
            Received::Data(data) => data.to_vec(),
            Received::Pending | Received::Broken => return Ok(()),
            Received::End => return reply.finish(),
        };
        let taken = reply.write(&data)?;
        reply.consume(taken);
        if taken < data.len() {
            return Ok(());
        }
    }
}

fn send_file(reply: &mut Reply<'_>) -> Result<(), Misuse> {
    reply.respond(StatusCode::OK)?.field("Content-Type", "text/plain")?.length(5_000).send()?;
    reply.attach_file(File::new(3, 9_000));
    reply.offer_file(1_000, 5_000)?;
    reply.finish()
}
