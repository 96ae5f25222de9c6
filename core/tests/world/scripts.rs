//! The scripts of a simulation: what each writes and when, how it reads, and how it ends. All of it
//! follows from a seed; how far it has come, from what its driver knows.

use sanserve_core::ScriptInput;

use super::hops::Hop;
use super::random::Random;

/// How it reads its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    All,
    /// At most so many bytes at a time, then not for a while.
    Slowly(u64),
    Never,
    /// It closes its input when it has read so much.
    Until(usize),
}

/// How its output ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It ends, or closes its output and lives on: who reads cannot tell.
    Closes,
    /// It dies when it has written so much.
    Dies(usize),
    Never,
}

/// What a script does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Write(Vec<u8>),
    Close,
    /// Nothing, until it is fed, or for ever.
    Nothing,
}

/// What a script does with what is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Bytes(u64),
    Blocks,
    Closes,
}

/// One run of a script.
#[derive(Clone, Debug)]
pub struct Program {
    output: Vec<u8>,
    /// Its input comes back behind its output.
    echoes: bool,
    /// It writes nothing before it has read everything.
    last: bool,
    reads: Reads,
    end: End,
    /// Bytes that it writes at a time, and milliseconds between.
    piece: u64,
    pace: u64,
    random: Random,
}

/// Heads that are right; the length that is announced is put in for `{}`.
const HEADS: [&str; 12] = [
    "Content-Type: a/b\nX-Script: yes\n\n",
    "Content-Type: a/b\r\nX-Script: yes\r\n\r\n",
    "X-Script: yes\nContent-Length: {}\n\n",
    "Content-Length: {}\nX-Script: yes\nStatus: 404 Not here\n\n",
    "Status: 201\nX-Script: yes\nContent-Length: {}\n\n",
    "Status: 204\nX-Script: yes\n\n",
    "Status: 304\nX-Script: yes\nContent-Length: {}\n\n",
    "Status: 503\nX-Script: yes\n\n",
    "Location: http://x/y\nX-Script: yes\n\n",
    "Location: //x/y\nX-Script: yes\n\n",
    "Location: /a\nStatus: 303\nX-Script: yes\n\n",
    "X-Script: yes\nConnection: close\nTransfer-Encoding: chunked\nServer: me\nTrailer: y\n\n",
];

/// Heads that end the connection, heads that are none, and local redirects.
const ODD: [&str; 15] = [
    "Status: 205 Begin anew\nX-Script: yes\n\n",
    "\n",
    "no colon\n\n",
    "X-Script: yes\n folded\n\n",
    "X-Script: yes\nX Y: z\n\n",
    "X-Script: yes\nStatus: 100 Continue\n\n",
    "X-Script: yes\nStatus: 20\n\n",
    "X-Script: yes\nContent-Length: -1\n\n",
    "X-Script: yes\nContent-Length: 3\nContent-Length: 3\n\n",
    "HTTP/1.1 200 OK\nX-Script: yes\n\n",
    "Location: /a\nX-Script: yes\n\n",
    "Location: /mid?q=1#f\n\n",
    "Location: /cgi-bin/wild\nX-Y: z\n\n",
    "Location: /cgi-bin/good/more?a+b\n\n",
    "Location: /not a target\n\n",
];

impl Program {
    /// What the script of that name does.
    pub fn new(name: &[u8], mut random: Random) -> Program {
        let name = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let is_good = name == b"good";
        let size = match name {
            b"big" => 100_000,
            _ => random.below(3_000),
        };
        let body: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
        let head = match name {
            b"move" => "Location: /cgi-bin/move\n\n",
            b"big" => HEADS[0],
            _ if name.starts_with(b"nph-") => {
                "HTTP/1.1 200 OK\r\nX-Script: yes\r\nServer: me\r\nDate: now\r\nConnection: close\r\n\r\n"
            }
            b"good" => *random.pick(&HEADS),
            _ if random.one_in(3) => *random.pick(&ODD),
            _ => *random.pick(&HEADS),
        };
        // What is announced may be more than there is, or less.
        let announced = match random.below(6) {
            0 if !is_good => size + random.size(50),
            1 => size.saturating_sub(random.size(50)),
            _ => size,
        };
        let head = head.replace("{}", &announced.to_string());
        let echoes = random.one_in(3) && !head.contains("Content-Length");
        let output = [head.as_bytes(), &body].concat();
        let most = output.len() as u64;
        let least = if is_good { 200 } else { 1 };
        let reads = match random.below(6) {
            0..=2 => Reads::All,
            3 => Reads::Slowly(random.size(500).max(least)),
            4 => Reads::Never,
            _ => Reads::Until(usize::try_from(random.below(1_500)).expect("memory")),
        };
        let end = match random.below(8) {
            0 if !is_good => End::Never,
            1 | 2 if !is_good => End::Dies(usize::try_from(random.below(most + 1)).expect("memory")),
            _ => End::Closes,
        };
        Program {
            output,
            echoes,
            last: random.one_in(3) && matches!(reads, Reads::All | Reads::Slowly(_)),
            reads,
            end,
            piece: random.size(most + 1).max(most / 8).max(least),
            pace: if is_good { random.within(1, 50) } else { *random.pick(&[1, 20, 400, 4_000]) },
            random,
        }
    }

    /// What it does when it next comes to writing.
    pub fn next(&mut self, hop: &Hop) -> Next {
        let listens = hop.input == Some(ScriptInput::Piped) && hop.may_be_fed() && self.reads != Reads::Never;
        if self.last && listens {
            return Next::Nothing;
        }
        let mut output = self.output.clone();
        if self.echoes {
            output.extend_from_slice(&hop.fed);
        }
        if let End::Dies(at) = self.end {
            output.truncate(at);
        }
        let rest = &output[hop.written.len().min(output.len())..];
        if !rest.is_empty() {
            let n = usize::try_from(self.piece).expect("memory").min(rest.len());
            return Next::Write(rest[..n].to_vec());
        }
        match self.end {
            End::Never => Next::Nothing,
            End::Closes if self.echoes && listens => Next::Nothing,
            End::Closes | End::Dies(_) => Next::Close,
        }
    }

    /// Milliseconds until it does anything.
    pub fn delay(&mut self) -> u64 {
        self.random.within(1, self.pace)
    }

    /// What becomes of `offered` bytes that are fed.
    pub fn take(&mut self, hop: &Hop, offered: u64) -> Taken {
        match self.reads {
            Reads::All => Taken::Bytes(self.random.size(offered)),
            Reads::Slowly(_) | Reads::Never if self.random.one_in(2) || self.reads == Reads::Never => Taken::Blocks,
            Reads::Slowly(n) => Taken::Bytes(n.min(offered)),
            Reads::Until(most) if hop.fed.len() >= most => Taken::Closes,
            Reads::Until(most) => Taken::Bytes(offered.min((most - hop.fed.len()) as u64)),
            Reads::Never => Taken::Blocks,
        }
    }

    /// Whether it reads on some time after it took no more.
    pub fn reads_on(&self) -> bool {
        self.reads != Reads::Never
    }
}
