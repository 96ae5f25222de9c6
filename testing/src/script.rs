//! Scripts on the virtual disk: how they read their input, what they print, and when.

use sanserve_core::{ScriptInput, SpawnError};

/// How much a script prints at a time by default; less than the capacity of a pipe.
const PIECE: usize = 8 * 1024;

/// A virtual script (RFC 3875). It reads its input to the end, and then prints its output, beginning with the head,
/// like a real script.
///
/// ```
/// use sanserve_core::{Cgi, Config};
/// use sanserve_testing::{Disk, Script, Server};
///
/// let script = Script::printing("Content-Type: text/plain\n\nYou said: ").echoing();
/// let config = Config::default().with_cgi(Cgi::python());
/// let server = Server::new().disk(Disk::new().script("cgi-bin/say", script)).config(config);
/// let post = "POST /cgi-bin/say HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
/// server.connect().send(post).expect_answer(200, "You said: hi");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    prints: Vec<u8>,
    echoes: bool,
    reads: bool,
    ends: bool,
    piece: usize,
    pause: u64,
    refused: Option<SpawnError>,
}

impl Script {
    /// Creates a script that prints these bytes and exits.
    #[must_use]
    pub fn printing(bytes: impl AsRef<[u8]>) -> Script {
        Script {
            prints: bytes.as_ref().to_vec(),
            echoes: false,
            reads: true,
            ends: true,
            piece: PIECE,
            pause: 0,
            refused: None,
        }
    }

    /// Also prints what it has read.
    #[must_use]
    pub fn echoing(self) -> Script {
        Script { echoes: true, ..self }
    }

    /// Does not read its input, and prints at once.
    #[must_use]
    pub fn deaf(self) -> Script {
        Script { reads: false, ..self }
    }

    /// Never exits by itself.
    #[must_use]
    pub fn hanging(self) -> Script {
        Script { ends: false, ..self }
    }

    /// Prints at most `piece` bytes at a time, and waits for `pause` milliseconds before each piece.
    ///
    /// # Panics
    /// If `piece` is 0.
    #[must_use]
    pub fn slowly(self, piece: usize, pause: u64) -> Script {
        assert!(piece > 0, "use hanging for a script that prints nothing");
        Script { piece, pause, ..self }
    }

    /// Creates a script that cannot be run.
    #[must_use]
    pub fn refused(error: SpawnError) -> Script {
        Script { refused: Some(error), ..Script::printing("") }
    }
}

/// The next output of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Bytes(Vec<u8>),
    End,
}

/// The script of the current exchange.
#[derive(Clone, Debug)]
pub(super) struct Running {
    script: Script,
    /// Whether the script was run. Before that, its input is stored.
    is_run: bool,
    read: Vec<u8>,
    has_read_all: bool,
    printed: usize,
    has_ended: bool,
}

impl Running {
    pub(super) fn found(script: &Script) -> Running {
        Running {
            script: script.clone(),
            is_run: false,
            read: Vec::new(),
            has_read_all: false,
            printed: 0,
            has_ended: false,
        }
    }

    pub(super) fn run(&mut self, input: ScriptInput) -> Result<(), SpawnError> {
        self.has_read_all = input != ScriptInput::Piped;
        self.is_run = self.script.refused.is_none();
        self.script.refused.map_or(Ok(()), Err)
    }

    /// How many of these bytes are read, at most `most`; `None` if the input is closed.
    pub(super) fn feed(&mut self, bytes: &[u8], most: usize) -> Option<usize> {
        if self.is_run && !self.script.reads {
            return None;
        }
        let n = bytes.len().min(most);
        self.read.extend_from_slice(&bytes[..n]);
        Some(n)
    }

    pub(super) fn end_input(&mut self) {
        self.has_read_all = true;
    }

    /// The time until the next output in milliseconds; `None` while it waits for input or hangs.
    pub(super) fn pause(&self) -> Option<u64> {
        let waits = !self.is_run || self.has_ended || (self.script.reads && !self.has_read_all);
        let hangs = self.left() == 0 && !self.script.ends;
        (!waits && !hangs).then_some(self.script.pause)
    }

    fn left(&self) -> usize {
        let echo = if self.script.echoes { self.read.len() } else { 0 };
        self.script.prints.len() + echo - self.printed
    }

    /// The next output.
    pub(super) fn next_output(&mut self) -> Output {
        if self.left() == 0 {
            self.has_ended = true;
            return Output::End;
        }
        let echo = if self.script.echoes { self.read.as_slice() } else { &[] };
        let all = self.script.prints.iter().chain(echo);
        let bytes: Vec<u8> = all.skip(self.printed).take(self.script.piece).copied().collect();
        self.printed += bytes.len();
        Output::Bytes(bytes)
    }
}
