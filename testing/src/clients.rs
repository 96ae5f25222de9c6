//! The clients of a world: how they behave, what they send and how they read. When they act is decided in `world`.

use std::collections::VecDeque;

use super::disk::{Disk, Node};
use super::faults::Faults;
use super::random::Random;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sends requests and reads the responses. Everything must succeed.
    Regular,
    /// Connects and sends nothing.
    Silent,
    /// Sends a head very slowly.
    DripHead,
    /// Sends a body very slowly.
    DripBody,
    /// Sends requests and reads nothing.
    NeverReads,
    /// Sends requests and reads very slowly.
    SlowReader,
    /// Resets the connection at some point.
    Resetter,
    /// Half-closes after its last request, or in the middle of it.
    HalfCloser,
}

impl Kind {
    fn pick(faults: Faults, random: &mut Random) -> Kind {
        let mut kinds = vec![Kind::Regular; 4];
        if faults.has(Faults::SLOW) {
            kinds.extend([Kind::Silent, Kind::DripHead, Kind::DripBody, Kind::NeverReads, Kind::SlowReader]);
        }
        if faults.has(Faults::RESET) {
            kinds.push(Kind::Resetter);
        }
        if faults.has(Faults::HALF_CLOSE) {
            kinds.push(Kind::HalfCloser);
        }
        *random.pick(&kinds)
    }
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Bytes(Vec<u8>),
    Eof,
    Reset,
}

/// Generates a request.
pub(super) type Requests<'s> = dyn Fn(&mut Random) -> Vec<u8> + 's;

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    kind: Kind,
    faults: Faults,
    /// How many more requests it sends.
    left: u64,
    /// Whether it does not wait for responses.
    pipelines: bool,
    /// The capacity of the server's socket buffer.
    pub(super) socket: u64,
    /// How many bytes it reads, and the interval in milliseconds. With no bytes, it never reads.
    pub(super) reads: (u64, u64),
    /// What is in transit, and when it arrives, in order.
    pub(super) outbox: VecDeque<(u64, Sent)>,
    /// How many requests it has sent.
    made: u64,
    /// Whether it sends nothing more.
    done: bool,
}

impl Client {
    pub(super) fn new(faults: Faults, random: &mut Random) -> Client {
        let kind = Kind::pick(faults, random);
        let socket = match kind {
            Kind::NeverReads | Kind::SlowReader => 1 << random.within(6, 10),
            _ if faults.has(Faults::SPLIT) || faults.has(Faults::SLOW) => 1 << random.within(8, 16),
            _ => u64::MAX,
        };
        let reads = match kind {
            Kind::NeverReads => (0, 1),
            Kind::SlowReader => (random.within(1, 60), 1_000),
            _ => (1 << 20, random.within(1, 40)),
        };
        let left = match kind {
            Kind::Regular => random.size(30),
            Kind::HalfCloser => random.size(8),
            _ => random.size(4),
        };
        let pipelines = faults.has(Faults::PIPELINE) && random.one_in(2);
        Client { kind, faults, left, pipelines, socket, reads, outbox: VecDeque::new(), made: 0, done: false }
    }

    /// Lets the client act, if it is time; `answered` of its requests have a response. Returns when it wants to act
    /// again in any case.
    pub(super) fn act(&mut self, now: u64, answered: u64, requests: &Requests<'_>, random: &mut Random) -> Option<u64> {
        let waits = self.made > answered && !self.pipelines;
        if self.done || waits || !self.outbox.is_empty() {
            return None;
        }
        match self.kind {
            Kind::Silent => self.done = true,
            Kind::DripHead => {
                let head = format!("GET /a HTTP/1.1\r\nHost: x\r\nX-Slow: {}", "y".repeat(200));
                self.drip(now, head.as_bytes(), random);
            }
            Kind::DripBody => {
                let first = requests(random);
                let target = target(&first);
                let chunked = random.one_in(2);
                let framing = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 300" };
                let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
                self.outbox.push_back((now, Sent::Bytes(head.into_bytes())));
                let chunk = if chunked { "200\r\n" } else { "" };
                self.drip(now + 1_000, format!("{chunk}{}", "z".repeat(250)).as_bytes(), random);
            }
            Kind::Resetter if self.made == 0 => {
                let mut at = now;
                for _ in 0..self.left {
                    at = self.send(at, &requests(random), random);
                }
                let first = random.below(self.outbox.len() as u64 + 1);
                self.outbox.truncate(usize::try_from(first).expect("an index"));
                let last = self.outbox.back().map_or(now, |(at, _)| *at);
                self.outbox.push_back((last + random.below(300), Sent::Reset));
                self.done = true;
            }
            _ if self.left == 0 => self.leave(now, answered, random),
            _ => {
                // Requests that are sent without a pause are split like one.
                let burst = if self.pipelines { random.within(1, 3).min(self.left) } else { 1 };
                self.left -= burst;
                self.made += burst;
                let is_last = self.left == 0 && self.kind == Kind::HalfCloser;
                let bytes: Vec<u8> = (0..burst).flat_map(|_| requests(random)).collect();
                let mut at = self.send(now, &bytes, random);
                if is_last {
                    if random.one_in(2) {
                        // In the middle of the last request.
                        let cut = random.size(self.outbox.len() as u64);
                        self.outbox.truncate(usize::try_from(cut).expect("an index"));
                        at = self.outbox.back().map_or(at, |(at, _)| *at);
                    }
                    self.outbox.push_back((at + random.below(3), Sent::Eof));
                    self.done = true;
                } else if self.pipelines {
                    return Some(at + *random.pick(&[0, 0, 1, 50, 1_000]));
                }
            }
        }
        None
    }

    /// How long it waits after a response, in milliseconds.
    pub(super) fn pause(&self, random: &mut Random) -> u64 {
        *random.pick(&[0, 1, 50, 1_000, 9_000, 14_999])
    }

    /// Ends after the last response: half-closes, or sends nothing more.
    fn leave(&mut self, now: u64, answered: u64, random: &mut Random) {
        self.done = answered == self.made;
        if self.done && self.kind == Kind::Regular && random.one_in(2) {
            self.outbox.push_back((now, Sent::Eof));
        }
    }

    /// Sends bytes with the delays and splits of the network; returns when the last one arrives.
    fn send(&mut self, mut at: u64, bytes: &[u8], random: &mut Random) -> u64 {
        let at_once = !self.faults.has(Faults::SPLIT) || random.one_in(3);
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = if at_once { rest.len() as u64 } else { random.size(rest.len() as u64) };
            let (piece, later) = rest.split_at(usize::try_from(n).expect("memory"));
            self.outbox.push_back((at, Sent::Bytes(piece.to_vec())));
            rest = later;
            if !rest.is_empty() {
                at += random.below(200);
            }
        }
        at
    }

    /// Sends single bytes, slowly but without a long pause.
    fn drip(&mut self, mut at: u64, bytes: &[u8], random: &mut Random) {
        for byte in bytes {
            self.outbox.push_back((at, Sent::Bytes(vec![*byte])));
            at += random.within(500, 1_500);
        }
        self.done = true;
    }
}

/// The target of a request.
fn target(request: &[u8]) -> String {
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let target = line.split(|&byte| byte == b' ').nth(1).unwrap_or(b"/");
    let is_plain = target.starts_with(b"/") && target.iter().all(u8::is_ascii_graphic);
    if is_plain { String::from_utf8_lossy(target).into_owned() } else { "/".into() }
}

/// Generates requests for files that are on a disk and for others: whole, in parts, with conditions.
pub(super) fn for_disk(disk: &Disk, random: &mut Random) -> Vec<u8> {
    let paths: Vec<&Vec<u8>> = disk.nodes.keys().collect();
    let mut target = b"/".to_vec();
    if random.one_in(8) || paths.is_empty() {
        target.extend_from_slice(b"no/such/file");
    } else {
        let path = *random.pick(&paths);
        for &byte in path {
            if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
                target.push(byte);
            } else {
                target.extend_from_slice(format!("%{byte:02X}").as_bytes());
            }
        }
        let is_directory = matches!(disk.nodes.get(path), Some(Node::Directory(_)));
        if is_directory && !path.is_empty() && !random.one_in(4) {
            target.push(b'/');
        }
    }
    let method = *random.pick(&["GET", "GET", "GET", "HEAD"]);
    let fields = *random.pick(&[
        "",
        "",
        "",
        "Range: bytes=3-40\r\n",
        "Range: bytes=0-0,9-12,-3\r\n",
        "If-None-Match: \"x\"\r\n",
        "If-None-Match: *\r\n",
    ]);
    let target = String::from_utf8_lossy(&target).into_owned();
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
}
