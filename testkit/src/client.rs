//! A client on a raw socket. It sends bytes as given, and parses responses strictly.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::response::{Framing, Head, Response};
use crate::wait::{QUIET_PERIOD, TIMEOUT};

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    /// Bytes that were received but not consumed yet.
    pending: Vec<u8>,
}

impl Client {
    /// Connects.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect_timeout(&address, TIMEOUT).expect("the server accepts connections"))
    }

    /// Connects with a small receive buffer, so that the server soon has to wait for this client.
    #[track_caller]
    pub fn connect_narrow(address: SocketAddr) -> Client {
        // The servers that other tests start at the same time must not inherit it.
        #[cfg(target_os = "linux")]
        let socket = {
            let flags = rustix::net::SocketFlags::CLOEXEC;
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket")
        };
        #[cfg(not(target_os = "linux"))]
        let socket = {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
            rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).expect("any descriptor can be set");
            socket
        };
        sockopt::set_socket_recv_buffer_size(&socket, 4096).expect("any size is allowed");
        rustix::net::connect(&socket, &address).expect("the server accepts connections");
        Client::over(TcpStream::from(socket))
    }

    fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.set_nodelay(true).expect("an option of TCP");
        Client { stream, pending: Vec::new() }
    }

    /// A second client of the same connection, to send in one thread and receive in another.
    pub fn twin(&self) -> Client {
        Client::over(self.stream.try_clone().expect("a descriptor"))
    }

    /// The address of this end.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("the socket is connected")
    }

    /// Sends all bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server reads all bytes");
    }

    /// Sends all bytes, unless the server has closed the connection.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends `bytes` repeatedly until the server accepts no more.
    pub fn send_while_taken(&mut self, bytes: &[u8]) {
        self.stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        for _ in 0..2000 {
            if self.try_send(bytes).is_err() {
                return;
            }
        }
        panic!("the server reads requests without end, although no response is read");
    }

    /// Sends the bytes one by one.
    #[track_caller]
    pub fn dribble(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// Sends the bytes in pieces that end at `cuts`, with pauses that are long enough for most of them to arrive
    /// separately.
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

    /// Closes the sending side of the connection.
    #[track_caller]
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection was not reset");
    }

    /// Like [`half_close`](Self::half_close), if the connection may already be closed.
    pub fn half_close_if_open(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("an option of sockets");
    }

    /// Sends a GET with no field but `Host`, and receives the response.
    #[track_caller]
    pub fn get(&mut self, target: impl AsRef<[u8]>) -> Response {
        self.ask([b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat())
    }

    /// Sends a request and receives the response.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request.as_ref());
        self.response_to(request.as_ref())
    }

    /// Receives the response to a request that was sent. Its method decides whether there is a body.
    #[track_caller]
    pub fn response_to(&mut self, request: &[u8]) -> Response {
        let mut body = Vec::new();
        let request = request.trim_ascii_start();
        let head = self.receive(request.starts_with(b"HEAD "), |bytes| body.extend_from_slice(bytes));
        Response { head, body }
    }

    /// Receives the response to a request other than HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to(b"")
    }

    /// Receives one response, and passes its body to `body` in pieces as they arrive.
    #[track_caller]
    pub fn receive(&mut self, to_head: bool, mut body: impl FnMut(&[u8])) -> Head {
        let head = self.head();
        match head.framing(to_head) {
            Framing::Empty => {}
            Framing::Length(mut left) => {
                while left > 0 {
                    assert!(!self.pending.is_empty() || self.more(), "{left} bytes of the body are missing");
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
                assert_eq!(self.trailers(), "\r\n", "unexpected trailers");
            }
            Framing::Close => {
                // A response of HTTP/1.0 closes by default.
                let closes = head.version == "HTTP/1.0" || head.closes();
                assert!(closes, "a body without framing on a persistent connection: {head:?}");
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

    /// Receives the head of a response, and leaves its body to be read.
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
            assert!(self.pending.len() < 1 << 16, "the head has no end: {:?}", self.pending[..512].escape_ascii());
            assert!(self.more(), "the connection ends in a head: {:?}", self.pending.escape_ascii().to_string());
        }
    }

    /// The next chunk of a body whose head was received. `None` for the last chunk, after which
    /// [`trailers`](Self::trailers) follow.
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

    /// The chunks of a body whose head was received, concatenated, and its trailer section.
    #[track_caller]
    pub fn chunks(&mut self) -> (Vec<u8>, String) {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk() {
            body.extend_from_slice(&chunk);
        }
        (body, self.trailers())
    }

    /// The trailer section, including the empty line at its end.
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

    /// The next line, without its line terminator.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.through(b"\r\n");
        String::from_utf8(line[..line.len() - 2].to_vec()).expect("a line of UTF-8")
    }

    /// The next `count` bytes.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.pending.len() < count {
            assert!(self.more(), "the connection ended too early: {:?}", self.pending.escape_ascii().to_string());
        }
        self.pending.drain(..count).collect()
    }

    /// All bytes up to and including the next `end`.
    #[track_caller]
    pub fn through(&mut self, end: &[u8]) -> Vec<u8> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].windows(end.len()).position(|window| window == end) {
                return self.take(searched + at + end.len());
            }
            searched = (self.pending.len() + 1).saturating_sub(end.len());
            assert!(self.more(), "the connection ended too early: {:?}", self.pending.escape_ascii().to_string());
        }
    }

    /// Reads and discards until `most` bytes have arrived or the connection has ended. Returns the number of bytes.
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
                Err(error) => panic!("reading failed after {count} bytes: {error}"),
            }
        }
    }

    /// Some bytes, at most those of one read; none at the end of the connection.
    #[track_caller]
    pub fn piece(&mut self) -> Vec<u8> {
        if self.pending.is_empty() {
            self.more();
        }
        std::mem::take(&mut self.pending)
    }

    /// Begins an exchange that is in progress until [`release`](Self::release), so that the connection is not closed
    /// to make room. It has begun when this returns. The server must serve `/a.txt`.
    #[track_caller]
    pub fn occupy(&mut self) {
        self.send("GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(self.response().status(), 200);
    }

    /// Finishes the exchange that [`occupy`](Self::occupy) has begun.
    #[track_caller]
    pub fn release(&mut self) {
        self.send("x");
        assert_eq!(self.response().status(), 200);
    }

    /// Whether nothing arrives for a while.
    #[track_caller]
    pub fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(QUIET_PERIOD)).expect("a timeout");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        self.pending.is_empty()
            && matches!(peeked, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Waits for the end of the connection, by a reset or not. Returns whether nothing was received before.
    #[track_caller]
    pub fn ended(&mut self) -> bool {
        self.rest_however().0.is_empty()
    }

    /// Asserts that the server closes the connection without a reset, and sends nothing more before.
    #[track_caller]
    pub fn ends(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "unexpected bytes: {:?}", rest.escape_ascii().to_string());
    }

    /// All bytes until the server closes the connection without a reset.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.pending)
    }

    /// All bytes until the connection has ended, and whether it was closed without a reset.
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

    /// Half-closes, and reads until the connection has ended in any way.
    #[track_caller]
    pub fn rest_after_half_close(&mut self) -> (Vec<u8>, bool) {
        self.half_close_if_open();
        self.rest_however()
    }

    /// Reads and discards at least `count` bytes.
    #[track_caller]
    pub fn skip(&mut self, count: usize) {
        let mut skipped = 0;
        while skipped < count {
            assert!(!self.pending.is_empty() || self.more(), "the connection ended after {skipped} bytes");
            skipped += self.pending.len();
            self.pending.clear();
        }
    }

    /// Whether a read, also one of the end, would not block.
    pub fn is_readable(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a flag");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a flag");
        !self.pending.is_empty() || !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Reads once. Returns `false` at the end.
    #[track_caller]
    fn more(&mut self) -> bool {
        self.read().unwrap_or_else(|error| {
            let got = &self.pending[..self.pending.len().min(2000)];
            panic!("reading failed: {error}; got so far: {:?}", got.escape_ascii().to_string())
        })
    }

    fn read(&mut self) -> io::Result<bool> {
        // A waiting client holds no buffer, because some tests measure the memory of connections in their own
        // process.
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

/// Whether the peer has dropped the connection.
pub fn reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
