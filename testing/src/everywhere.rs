//! Sends the same bytes in every way in which a network may split them, and compares the outcomes.

use sanserve_core::Close;

use super::answers::Answer;
use super::peer::Peer;
use super::server::Server;

/// Longer requests are not cut at every position.
const LONG: usize = 1_500;
/// The number of positions at which long requests are cut.
const PLACES: usize = 100;

/// A way to send and to receive.
struct Way {
    /// Where the bytes are cut.
    cut: Cut,
    /// How much the socket accepts at a time.
    take: Take,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Nowhere,
    At(usize),
    Bytewise,
}

#[derive(Clone, Copy, Debug)]
enum Take {
    All,
    /// This number of bytes, repeatedly.
    Bytes(u64),
    /// This number of bytes, and then it is full until the connection waits.
    Block(u64),
}

impl<'s> Server<'s> {
    /// Sends `bytes` to a new connection as a whole. Then sends them to other connections: cut at each position, byte
    /// by byte, and with sockets that accept 1 or 7 bytes at a time or are full after every 61. The responses, the log
    /// and the end of the connection must be the same each time, except for where chunks of a chunked body end. Returns
    /// the peer that sent everything at once.
    ///
    /// Requests of more than 1,500 bytes are cut at 100 positions.
    ///
    /// ```
    /// use sanserve_testing::{Disk, Server};
    ///
    /// let server = Server::new().disk(Disk::new().file("a", "hello\n"));
    /// server.everywhere("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").expect_answer(200, "hello\n").expect_nothing();
    /// ```
    ///
    /// # Panics
    /// If there is a difference. The message has the way of sending, both outcomes, and the transcript.
    #[track_caller]
    pub fn everywhere(&self, bytes: impl AsRef<[u8]>) -> Peer<'s> {
        let bytes = bytes.as_ref();
        let whole = self.play(bytes, &Way { cut: Cut::Nowhere, take: Take::All });
        let expected = Outcome::of(&whole);
        for way in ways(bytes.len()) {
            let peer = self.play(bytes, &way);
            if let Some(difference) = expected.difference(&Outcome::of(&peer)) {
                let Way { cut, take } = way;
                panic!("cut {cut:?}, taken {take:?}: {difference}\n\n{}", peer.transcript().to_text());
            }
        }
        whole
    }

    #[track_caller]
    fn play(&self, bytes: &[u8], way: &Way) -> Peer<'s> {
        let mut peer = self.connect();
        match way.take {
            Take::All => &mut peer,
            Take::Bytes(n) => peer.dribble(n),
            Take::Block(n) => peer.stop_reading().read(n),
        };
        let pieces: Vec<&[u8]> = match way.cut {
            Cut::Nowhere => vec![bytes],
            Cut::At(at) => vec![&bytes[..at], &bytes[at..]],
            Cut::Bytewise => bytes.chunks(1).collect(),
        };
        for piece in pieces {
            peer.send(piece);
            while let (Take::Block(n), Some(true)) = (way.take, peer.waits().map(|wait| wait.need.write)) {
                peer.read(n);
            }
        }
        peer
    }
}

fn ways(len: usize) -> Vec<Way> {
    let mut ways: Vec<Way> = Vec::new();
    for take in [Take::All, Take::Bytes(1), Take::Bytes(7), Take::Block(61)] {
        ways.push(Way { cut: Cut::Nowhere, take });
        ways.push(Way { cut: Cut::Bytewise, take });
    }
    let step = if len <= LONG { 1 } else { len / PLACES };
    ways.extend((1..len).step_by(step).map(|at| Way { cut: Cut::At(at), take: Take::All }));
    ways
}

/// What must not differ.
struct Outcome {
    answers: Vec<Answer>,
    /// Status, error and cut of each exchange.
    log: Vec<(u16, Option<Vec<u8>>, Option<String>)>,
    closed: Option<Close>,
}

impl Outcome {
    #[track_caller]
    fn of(peer: &Peer<'_>) -> Outcome {
        // The number of framing bytes depends on where chunks end.
        let answers = peer.answers().into_iter().map(|answer| Answer { framed: 0, ..answer });
        let log = peer.log().iter().map(|done| (done.status, done.error.clone(), done.cut.clone()));
        Outcome { answers: answers.collect(), log: log.collect(), closed: peer.closed() }
    }

    fn difference(&self, other: &Outcome) -> Option<String> {
        let n = self.answers.len().max(other.answers.len());
        for at in 0..n {
            let (a, b) = (self.answers.get(at), other.answers.get(at));
            if a != b {
                let shown = |answer: Option<&Answer>| answer.map_or("nothing".into(), Answer::to_string);
                let same = if a.map(|a| a.to_string()) == b.map(|b| b.to_string()) {
                    format!("\n  {:?}\n  {:?}", a.map(|a| &a.fields), b.map(|b| &b.fields))
                } else {
                    String::new()
                };
                return Some(format!("answer {at}\n  as a whole: {}\n  in pieces:  {}{same}", shown(a), shown(b)));
            }
        }
        if self.log != other.log {
            return Some(format!("the log\n  as a whole: {:?}\n  in pieces:  {:?}", self.log, other.log));
        }
        let end = |closed: Option<Close>| closed.map_or("open", Close::name);
        let (a, b) = (end(self.closed), end(other.closed));
        (a != b).then(|| format!("the end\n  as a whole: {a}\n  in pieces:  {b}"))
    }
}
