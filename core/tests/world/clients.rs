//! The clients of a simulation: what they send and when, how they read, and by when the server must
//! be rid of them.

use sanserve_core::Timeouts;

use super::random::Random;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends requests, reads what comes, pauses less than the server waits. Everything must succeed.
    Honest,
    /// The same, but all at once, and then it half-closes.
    HalfCloser,
    /// Connects and says nothing.
    Silent,
    /// A head, a byte a second.
    DripHead,
    /// A body, a byte a second.
    DripBody,
    /// Asks for much and reads nothing.
    NeverReads,
    /// Asks for much and reads a little now and then.
    SlowReader,
    /// Resets the connection somewhere.
    Vanisher,
    /// Breaks the rules, and goes on talking.
    Rude,
    /// Keeps the rules, and asks for scripts of all kinds; now and then it half-closes.
    Curious,
}

/// Behind [`WITHOUT_SCRIPTS`] of them stand those that need scripts.
const KINDS: [Kind; 17] = [
    Kind::Honest,
    Kind::Honest,
    Kind::Honest,
    Kind::Honest,
    Kind::HalfCloser,
    Kind::Silent,
    Kind::DripHead,
    Kind::DripBody,
    Kind::NeverReads,
    Kind::SlowReader,
    Kind::Vanisher,
    Kind::Rude,
    Kind::Curious,
    Kind::Curious,
    Kind::Curious,
    Kind::Curious,
    Kind::Curious,
];
const WITHOUT_SCRIPTS: usize = 12;

/// What a client puts on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    Bytes(Vec<u8>),
    Eof,
    Reset,
}

/// All that one client does.
#[derive(Debug)]
pub struct Plan {
    pub kind: Kind,
    pub starts: u64,
    /// What arrives at the server when, in order.
    pub arrivals: Vec<(u64, Sent)>,
    /// The room in the server's socket.
    pub socket: u64,
    /// How many bytes it reads, and after how many milliseconds again; no bytes: it never reads.
    pub reads: (u64, u64),
    /// The connection must be closed by then, not counting what the disk takes.
    pub bound: u64,
}

impl Plan {
    /// `scripts`: there are some, and it asks for them.
    pub fn new(starts: u64, scripts: bool, random: &mut Random, timeouts: &Timeouts) -> Plan {
        let kind = *random.pick(&KINDS[..if scripts { KINDS.len() } else { WITHOUT_SCRIPTS }]);
        let socket = 1 << random.within(6, 16);
        let mut plan =
            Plan { kind, starts, arrivals: Vec::new(), socket, reads: (1 << 20, random.within(1, 40)), bound: 0 };
        plan.script(scripts, random);
        let linger = timeouts.linger.max(timeouts.linger_silence);
        let last = plan.arrivals.last().map_or(starts, |(at, _)| *at);
        // To take all takes a while where the socket is small.
        let taken = plan.reads.1 * 40_000 / socket * 30;
        plan.bound = linger
            + match kind {
                Kind::Silent => starts + timeouts.keep_alive,
                Kind::DripHead => starts + timeouts.head,
                Kind::DripBody => starts + timeouts.body.grace + 2_000,
                Kind::NeverReads => starts + timeouts.write.grace,
                Kind::SlowReader => starts + timeouts.write.grace * 2,
                Kind::HalfCloser | Kind::Vanisher => last + taken,
                Kind::Honest | Kind::Curious => last + taken + timeouts.keep_alive,
                Kind::Rude => last + taken + timeouts.head + timeouts.keep_alive,
            };
        plan
    }

    /// What it does can go wrong only by the fault of the server.
    pub fn is_kind(&self) -> bool {
        matches!(self.kind, Kind::Honest | Kind::HalfCloser)
    }

    fn script(&mut self, scripts: bool, random: &mut Random) {
        let mut at = self.starts;
        // Who is to be answered well asks for what can do that.
        let names: &[&str] = match self.is_kind() {
            _ if !scripts => &[],
            true => &["good"],
            false => &["good", "wild", "wild", "wild", "move", "missing", "plain", "dir", "nph-wild"],
        };
        match self.kind {
            Kind::Honest => {
                for _ in 0..random.size(30) {
                    let bytes = request(names, random);
                    at = self.send(at, &bytes, 200, random);
                    // Now and then pipelined, now and then after nearly all patience.
                    at += *random.pick(&[0, 0, 1, 50, 1_000, 9_000]);
                }
            }
            Kind::HalfCloser => {
                for _ in 0..random.size(8) {
                    at = self.send(at, &request(names, random), 50, random);
                }
                self.arrivals.push((at + random.below(3), Sent::Eof));
            }
            Kind::Curious => {
                for _ in 0..random.size(8) {
                    let name = *random.pick(names);
                    at = self.send(at, &request_script(name, random), 100, random);
                    at += *random.pick(&[0, 0, 50, 3_000]);
                }
                if random.one_in(4) {
                    // Perhaps in the middle of a body.
                    let cut = random.size(self.arrivals.len() as u64);
                    self.arrivals.truncate(usize::try_from(cut).expect("an index"));
                    let last = self.arrivals.last().map_or(at, |(at, _)| *at);
                    self.arrivals.push((last + random.below(1_000), Sent::Eof));
                }
            }
            Kind::Silent => {}
            Kind::DripHead => {
                let head = format!("GET /a HTTP/1.1\r\nHost: x\r\nX: {}", "y".repeat(400));
                self.drip(at, head.as_bytes());
            }
            Kind::DripBody => {
                let targets = ["/h/echo", "/h/stream", "/a", "/cgi-bin/wild", "/cgi-bin/wild"];
                let target = random.pick(&targets[..if scripts { 5 } else { 3 }]);
                let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
                let head = if *target == "/a" { head.replace("POST", "GET") } else { head };
                self.arrivals.push((at, Sent::Bytes(head.into_bytes())));
                self.drip(at + 1_000, format!("200\r\n{}", "z".repeat(300)).as_bytes());
            }
            Kind::NeverReads | Kind::SlowReader => {
                // Of a handler, each window of output has a grace of its own.
                let slow = self.kind == Kind::SlowReader;
                let target = if slow { "/big.bin" } else { *random.pick(&["/big.bin", "/h/big"]) };
                let target = if scripts && random.one_in(2) { "/cgi-bin/big" } else { target };
                let text = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(4);
                self.arrivals.push((at, Sent::Bytes(text.into_bytes())));
                self.socket = 1 << random.within(6, 10);
                self.reads = if self.kind == Kind::NeverReads { (0, 1) } else { (random.within(1, 60), 1_000) };
            }
            Kind::Vanisher => {
                for _ in 0..random.size(4) {
                    at = self.send(at, &request(names, random), 100, random);
                }
                let cut = random.below(self.arrivals.len() as u64 + 1);
                self.arrivals.truncate(usize::try_from(cut).expect("an index"));
                let last = self.arrivals.last().map_or(at, |(at, _)| *at);
                self.arrivals.push((last + random.below(300), Sent::Reset));
            }
            Kind::Rude => {
                for _ in 0..random.size(3) {
                    at = self.send(at, &request(names, random), 20, random);
                }
                let bad = random.pick(&[
                    "GET /a HTTP/1.1\nHost: x\n\n",
                    "POST /h/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                    "POST /h/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
                    "GET /a HTTP/1.1\r\nHost: x\r\n fold: y\r\n\r\n",
                    "\0\0\0\0",
                ]);
                at = self.send(at, bad.as_bytes(), 20, random);
                for _ in 0..random.below(20) {
                    at = self.send(at, &request(names, random), 300, random);
                }
            }
        }
    }

    /// Puts bytes on the way in pieces, `delay` at most between two; says when the last arrives.
    fn send(&mut self, mut at: u64, bytes: &[u8], delay: u64, random: &mut Random) -> u64 {
        let mut rest = bytes;
        while !rest.is_empty() {
            let n = usize::try_from(random.size(rest.len() as u64)).expect("memory");
            let (now, later) = rest.split_at(n);
            self.arrivals.push((at, Sent::Bytes(now.to_vec())));
            at += random.below(delay);
            rest = later;
        }
        at
    }

    fn drip(&mut self, at: u64, bytes: &[u8]) {
        for (n, byte) in (0..).zip(bytes) {
            self.arrivals.push((at + n * 1_000, Sent::Bytes(vec![*byte])));
        }
    }
}

/// A request that is right; `names` are those of scripts.
fn request(names: &[&str], random: &mut Random) -> Vec<u8> {
    if !names.is_empty() && random.one_in(2) {
        let name = *random.pick(names);
        return request_script(name, random);
    }
    let method = *random.pick(&["GET", "GET", "GET", "HEAD"]);
    let target = *random.pick(&[
        "/a", "/empty", "/mid", "/r.txt", "/d/", "/index/", "/", "/d", "/none", "/denied", "/busy", "/h/late", "/h/big",
    ]);
    let fields = *random.pick(&[
        "",
        "",
        "",
        "Range: bytes=3-40\r\n",
        "Range: bytes=0-0,9-12,-3\r\n",
        "If-None-Match: \"x\"\r\n",
        "If-None-Match: *\r\n",
    ]);
    if !random.one_in(4) {
        return format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes();
    }
    let target = *random.pick(&["/h/echo", "/h/stream"]);
    with_body(target, 2_000, random)
}

/// A request for a script.
fn request_script(name: &str, random: &mut Random) -> Vec<u8> {
    let rest = *random.pick(&["", "", "/", "/info/a", "?a+b", "/%2e%2e/good/x?y=z"]);
    let target =
        format!("/{}/{name}{rest}", random.pick(&["cgi-bin", "cgi-bin", "htbin", "%63gi-bin", "a/../cgi-bin/."]));
    if random.one_in(2) {
        return with_body(&target, 3_500, random);
    }
    // A script that writes its own head is itself to see to it that HEAD has no body.
    let method = if name.starts_with("nph-") { "GET" } else { *random.pick(&["GET", "GET", "HEAD"]) };
    // To such a peer, what has no length ends with the connection.
    let version = if random.one_in(8) && name != "good" { "HTTP/1.0\r\nConnection: keep-alive" } else { "HTTP/1.1" };
    format!("{method} {target} {version}\r\nHost: x\r\n\r\n").into_bytes()
}

/// A POST with a body of at most `most` bytes, by length or in chunks.
fn with_body(target: &str, most: u64, random: &mut Random) -> Vec<u8> {
    let body: Vec<u8> = (0..random.size(most)).map(|_| random.next() as u8).collect();
    if random.one_in(2) {
        let mut text =
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        text.extend_from_slice(&body);
        return text;
    }
    let mut text = format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(usize::try_from(random.size(600)).expect("memory")) {
        text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        text.extend_from_slice(chunk);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}
