//! A server in this process and a client on a raw socket.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sanserve_mio::{Handle, Log, Misuse, Reply, Server, Service, Status};

/// What a test waits for something that should be there at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    thread: JoinHandle<io::Result<()>>,
    lines: Lines,
}

/// Starts a server with one worker, so that what happens on it has an order.
pub(crate) fn start(service: Service) -> Running {
    let lines = Lines::default();
    let service = service.with_log(Log::to(lines.clone()));
    let server = Server::bind_with(([127, 0, 0, 1], 0).into(), service, 1).unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    Running { address, handle, thread: std::thread::spawn(move || server.run()), lines }
}

impl Running {
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Lets the loop get through all that it has to do by now. The service must answer `/sync`.
    pub(crate) fn sync(&self) {
        for _ in 0..2 {
            assert_eq!(self.client().get("/sync").1, b"synced");
        }
    }

    /// Stops it; its log.
    pub(crate) fn end(self) -> String {
        self.handle.stop();
        self.thread.join().unwrap().unwrap();
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }
}

/// Answers `/sync`; `false` for any other path.
pub(crate) fn answers_sync(reply: &mut Reply<'_>) -> Result<bool, Misuse> {
    let is_sync = reply.request().path() == b"/sync";
    if is_sync {
        reply.close();
        reply.answer(Status::OK, "text/plain", "synced")?;
    }
    Ok(is_sync)
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    /// With a receive buffer so small that the server soon has to wait.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Client {
        use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        connect(&socket, &address).unwrap();
        Client::over(TcpStream::from(socket))
    }

    fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, pending: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }

    /// Head and body of the answer.
    pub(crate) fn get(&mut self, path: &str) -> (String, Vec<u8>) {
        self.ask(path);
        self.answer()
    }

    /// Head and body of the next answer, which is framed.
    pub(crate) fn answer(&mut self) -> (String, Vec<u8>) {
        let head = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let body = match length {
            Some(length) => self.exactly(length.parse().unwrap()),
            None if head.contains("\r\nTransfer-Encoding: chunked\r\n") => {
                let mut body = Vec::new();
                while let Some(chunk) = self.chunk() {
                    body.extend(chunk);
                }
                assert_eq!(self.line(), "", "no trailers were expected");
                body
            }
            None => Vec::new(),
        };
        (head, body)
    }

    /// The next head, with the empty line that ends it.
    pub(crate) fn head(&mut self) -> String {
        String::from_utf8(self.through(b"\r\n\r\n")).unwrap()
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> String {
        let line = self.through(b"\r\n");
        String::from_utf8(line[..line.len() - 2].to_vec()).unwrap()
    }

    /// The next chunk, `None` for the last, behind which the trailers follow.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let len = usize::from_str_radix(&self.line(), 16).unwrap();
        if len == 0 {
            return None;
        }
        let chunk = self.exactly(len);
        assert_eq!(self.line(), "");
        Some(chunk)
    }

    pub(crate) fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.pending.len() < n {
            self.more();
        }
        self.pending.drain(..n).collect()
    }

    /// All up to the next `end`, and that too.
    pub(crate) fn through(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|window| window == end) {
                return self.exactly(at + end.len());
            }
            self.more();
        }
    }

    fn more(&mut self) {
        let mut bytes = [0; 64 * 1024];
        let n = self.stream.read(&mut bytes).unwrap();
        assert!(n > 0, "ended behind {}", self.pending.escape_ascii());
        self.pending.extend_from_slice(&bytes[..n]);
    }

    /// All that still comes, however it ends.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut bytes = [0; 64 * 1024];
        while let Ok(n @ 1..) = self.stream.read(&mut bytes) {
            self.pending.extend_from_slice(&bytes[..n]);
        }
        self.pending
    }

    /// Goes away without a word: the server gets a reset.
    pub(crate) fn vanish(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }
}
