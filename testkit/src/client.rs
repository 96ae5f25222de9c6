//! A client on a raw socket. It sends what it is told and takes answers apart strictly.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::response::{Framing, Head, Response};
use crate::{GLANCE, PATIENCE};

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Received, not yet taken.
    pending: Vec<u8>,
}

impl Client {
    /// Connects.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts"))
    }

    /// Connects with a receive buffer so small that the server soon has to wait for this client.
    #[track_caller]
    pub fn connect_narrow(address: SocketAddr) -> Client {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_recv_buffer_size(&socket, 4096).expect("any size is allowed");
        rustix::net::connect(&socket, &address).expect("the server accepts");
        Client::over(TcpStream::from(socket))
    }

    fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option of TCP");
        Client { stream, pending: Vec::new() }
    }

    /// The same connection once more, to send in one thread and receive in another.
    pub fn twin(&self) -> Client {
        Client::over(self.stream.try_clone().expect("a descriptor"))
    }

    /// The address of this end.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    /// Sends all of it.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server takes what is sent");
    }

    /// Sends all of it unless the server is gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends `bytes` again and again until the server takes no more.
    pub fn send_while_taken(&mut self, bytes: &[u8]) {
        self.stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        for _ in 0..2000 {
            if self.try_send(bytes).is_err() {
                return;
            }
        }
        panic!("the server takes requests without end while nobody reads its answers");
    }

    /// Sends it in single bytes.
    #[track_caller]
    pub fn dribble(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// Sends it in pieces that end at `cuts`, with a pause long enough that they mostly arrive apart.
    #[track_caller]
    pub fn send_cut(&mut self, bytes: &[u8], cuts: &[usize]) {
        let mut start = 0;
        for &cut in cuts {
            self.send(&bytes[start..cut]);
            std::thread::sleep(Duration::from_millis(1));
            start = cut;
        }
        self.send(&bytes[start..]);
    }

    /// Tells the server that nothing more will come.
    #[track_caller]
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection was not reset");
    }

    /// The same where the connection may be over already.
    pub fn half_close_if_open(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("an option of sockets");
    }

    /// A GET with nothing but a Host, and its answer, on this connection.
    #[track_caller]
    pub fn get(&mut self, target: impl AsRef<[u8]>) -> Response {
        self.ask([b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat())
    }

    /// Sends a request and takes its answer.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request.as_ref());
        self.response_to(request.as_ref())
    }

    /// The answer to a request that was sent, whose method decides whether a body comes.
    #[track_caller]
    pub fn response_to(&mut self, request: &[u8]) -> Response {
        let mut body = Vec::new();
        let request = request.trim_ascii_start();
        let head = self.receive(request.starts_with(b"HEAD "), |bytes| body.extend_from_slice(bytes));
        Response { head, body }
    }

    /// The answer to anything but a HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to(b"")
    }

    /// One answer, whose body is handed on in pieces as it comes.
    #[track_caller]
    pub fn receive(&mut self, to_head: bool, mut body: impl FnMut(&[u8])) -> Head {
        let head = self.head();
        match head.framing(to_head) {
            Framing::Empty => {}
            Framing::Length(mut left) => {
                while left > 0 {
                    assert!(!self.pending.is_empty() || self.more(), "the body ends {left} bytes too early");
                    let now = self.pending.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    body(&self.pending[..now]);
                    self.pending.drain(..now);
                    left -= now as u64;
                }
            }
            Framing::Chunked => {
                while let Some(chunk) = self.chunk() {
                    body(&chunk);
                }
                assert_eq!(self.trailers(), "\r\n", "no trailers were expected");
            }
            Framing::Close => {
                // An answer of HTTP/1.0 need not say so.
                let closes = head.version == "HTTP/1.0" || head.closes();
                assert!(closes, "a body that ends with the connection: {head:?}");
                loop {
                    body(&std::mem::take(&mut self.pending));
                    if !self.more() {
                        break;
                    }
                }
            }
        }
        head
    }

    /// The head of an answer, leaving its body to be read.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        let mut searched = 0;
        loop {
            let found = self.pending[searched..].windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(at) = found {
                let head: Vec<u8> = self.pending.drain(..searched + at + 4).collect();
                return Head::parse(&head);
            }
            searched = self.pending.len().saturating_sub(3);
            assert!(self.pending.len() < 1 << 16, "a head without an end: {:?}", self.pending[..512].escape_ascii());
            assert!(self.more(), "the connection ends in a head: {:?}", self.pending.escape_ascii().to_string());
        }
    }

    /// The next chunk of a body whose head was taken; `None` for the last, which [`trailers`](Self::trailers) follow.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let digits = self.line();
        assert!(!digits.is_empty() && digits.bytes().all(|d| d.is_ascii_hexdigit()), "a chunk size: {digits:?}");
        let size = usize::from_str_radix(&digits, 16).expect("a chunk size");
        if size == 0 {
            return None;
        }
        let mut chunk = self.take(size + 2);
        assert_eq!(chunk.split_off(size), b"\r\n", "the end of a chunk");
        Some(chunk)
    }

    /// The chunks of a body whose head was taken, put together, and its trailer section.
    #[track_caller]
    pub fn chunks(&mut self) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk() {
            body.extend_from_slice(&chunk);
        }
        (body, self.trailers())
    }

    /// The trailer section, with the empty line that ends it.
    #[track_caller]
    pub fn trailers(&mut self) -> String {
        let mut section = String::new();
        loop {
            let line = self.line();
            section.push_str(&line);
            section.push_str("\r\n");
            if line.is_empty() {
                return section;
            }
        }
    }

    /// The next line, without its end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.through(b"\r\n");
        String::from_utf8(line[..line.len() - 2].to_vec()).expect("a line of UTF-8")
    }

    /// The next `count` bytes, whatever they are.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.pending.len() < count {
            assert!(self.more(), "the connection ends too early: {:?}", self.pending.escape_ascii().to_string());
        }
        self.pending.drain(..count).collect()
    }

    /// What comes up to the next `end`, and that too.
    #[track_caller]
    pub fn through(&mut self, end: &[u8]) -> Vec<u8> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].windows(end.len()).position(|window| window == end) {
                return self.take(searched + at + end.len());
            }
            searched = (self.pending.len() + 1).saturating_sub(end.len());
            assert!(self.more(), "the connection ends too early: {:?}", self.pending.escape_ascii().to_string());
        }
    }

    /// Reads and forgets until `most` bytes have come or the connection is over; how many have come.
    #[track_caller]
    pub fn count(&mut self, most: u64) -> u64 {
        let mut count = 0;
        loop {
            let now = self.pending.len().min(usize::try_from(most - count).unwrap_or(usize::MAX));
            self.pending.drain(..now);
            count += now as u64;
            match if count == most { Ok(false) } else { self.read() } {
                Ok(true) => {}
                Ok(false) => return count,
                Err(error) if reset(&error) => return count,
                Err(error) => panic!("reading failed behind {count} bytes: {error}"),
            }
        }
    }

    /// Some bytes, at most what one read brings; none at the end of the connection.
    #[track_caller]
    pub fn piece(&mut self) -> Vec<u8> {
        if self.pending.is_empty() {
            self.more();
        }
        std::mem::take(&mut self.pending)
    }

    /// Has an exchange that goes on until [`release`](Self::release): no idle connection, which would be closed to make room. It has
    /// begun when this returns. The server must serve `/a.txt`.
    #[track_caller]
    pub fn occupy(&mut self) {
        self.send("GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(self.response().status(), 200);
    }

    /// Ends what [`occupy`](Self::occupy) has begun.
    #[track_caller]
    pub fn release(&mut self) {
        self.send("x");
        assert_eq!(self.response().status(), 200);
    }

    /// Whether nothing comes for a while.
    #[track_caller]
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(GLANCE)).expect("a timeout");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        self.pending.is_empty()
            && matches!(peeked, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Waits for the end of the connection, by a reset or not; whether nothing came before.
    #[track_caller]
    pub fn ended(&mut self) -> bool {
        self.rest_however().0.is_empty()
    }

    /// Asserts that the server ends the connection in good order and sends nothing more before.
    #[track_caller]
    pub fn ends(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "unexpected bytes: {:?}", rest.escape_ascii().to_string());
    }

    /// Everything until the server ends the connection in good order.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.pending)
    }

    /// Everything until the connection is over, and whether in good order (not by a reset).
    #[track_caller]
    pub fn rest_however(&mut self) -> (Vec<u8>, bool) {
        let orderly = loop {
            match self.read() {
                Ok(true) => {}
                Ok(false) => break true,
                Err(error) if reset(&error) => break false,
                Err(error) => panic!("reading failed: {error}"),
            }
        };
        (std::mem::take(&mut self.pending), orderly)
    }

    /// Ends this side, and reads what still comes, however it ends.
    #[track_caller]
    pub fn rest_after_half_close(&mut self) -> (Vec<u8>, bool) {
        self.half_close_if_open();
        self.rest_however()
    }

    /// Reads at least `count` bytes of whatever comes and forgets them.
    #[track_caller]
    pub fn skip(&mut self, count: usize) {
        let mut skipped = 0;
        while skipped < count {
            assert!(!self.pending.is_empty() || self.more(), "the connection ends after {skipped} bytes");
            skipped += self.pending.len();
            self.pending.clear();
        }
    }

    /// Whether anything, an end included, can be read without waiting.
    pub fn is_readable(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a flag");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a flag");
        !self.pending.is_empty() || !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Reads once; `false` at the end.
    #[track_caller]
    fn more(&mut self) -> bool {
        self.read().unwrap_or_else(|error| {
            let got = &self.pending[..self.pending.len().min(2000)];
            panic!("reading failed: {error}; got so far: {:?}", got.escape_ascii().to_string())
        })
    }

    fn read(&mut self) -> io::Result<bool> {
        // A client that waits holds no memory: some tests measure what a connection costs in their own process.
        let mut scratch = [0; 1 << 16];
        let read = loop {
            match self.stream.read(&mut scratch) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.pending.extend_from_slice(&scratch[..read]);
        Ok(read > 0)
    }
}

/// Whether the other end has dropped the connection.
pub fn reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
