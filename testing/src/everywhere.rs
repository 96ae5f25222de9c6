//! The same bytes in every way in which a network may bring them and take the answers.

use sanserve_core::Close;

use super::answers::Answer;
use super::peer::Peer;
use super::server::Server;

/// Requests longer than this are not cut at every place.
const LONG: usize = 1_500;
/// In how many places they are.
const PLACES: usize = 100;

/// One way to send and to receive.
struct Way {
    /// The pieces that the bytes come in: where each ends, or each as long as that.
    cut: Cut,
    /// How much the socket takes at a time.
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
    /// So many bytes, and then more at once.
    Bytes(u64),
    /// So many bytes, and then it is full until the connection waits.
    Block(u64),
}

impl<'s> Server<'s> {
    /// Sends `bytes` to a fresh connection as a whole; then to others cut at each byte, and byte by byte, and
    /// to sockets that take 1 or 7 bytes at a time or are full after every 61. The answers, the log and the end
    /// must be the same each time; only where chunks of a chunked body end may differ. Gives the peer that
    /// sent all at once.
    ///
    /// Requests of more than 1,500 bytes are cut in 100 places.
    ///
    /// ```
    /// use sanserve_testing::{Disk, Server};
    ///
    /// let server = Server::new().disk(Disk::new().file("a", "hello\n"));
    /// server.everywhere("GET /a HTTP/1.1\r\nHost: x\r\n\r\n").expect_answer(200, "hello\n").expect_nothing();
    /// ```
    ///
    /// # Panics
    /// If there is a difference: with the way in which it was sent, both sides, and the transcript.
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
        // How many bytes the framing has depends on where chunks end.
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
