//! Scripts on the virtual disk: what one does with its input, what it prints, and when.

use sanserve_core::{ScriptInput, SpawnError};

/// How much a script prints at a time, unless it says otherwise: less than a pipe holds.
const PIECE: usize = 8 * 1024;

/// A script (RFC 3875) that exists only in memory. It reads its input to the end and then prints what it is made with,
/// head first, as a real one would.
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
    /// It prints this and ends.
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

    /// Behind that it prints what it has read.
    #[must_use]
    pub fn echoing(self) -> Script {
        Script { echoes: true, ..self }
    }

    /// It reads nothing, and prints at once.
    #[must_use]
    pub fn deaf(self) -> Script {
        Script { reads: false, ..self }
    }

    /// It never ends by itself.
    #[must_use]
    pub fn hanging(self) -> Script {
        Script { ends: false, ..self }
    }

    /// It prints so many bytes at a time, and waits for so many milliseconds before each.
    ///
    /// # Panics
    /// If that is no byte.
    #[must_use]
    pub fn slowly(self, piece: usize, pause: u64) -> Script {
        assert!(piece > 0, "a script that prints nothing is one that hangs");
        Script { piece, pause, ..self }
    }

    /// It cannot be run.
    #[must_use]
    pub fn refused(error: SpawnError) -> Script {
        Script { refused: Some(error), ..Script::printing("") }
    }
}

/// What a script does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Bytes(Vec<u8>),
    End,
}

/// The script of the current exchange.
#[derive(Clone, Debug)]
pub(super) struct Running {
    script: Script,
    /// It was told to run; before, what is fed is kept for it.
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

    /// How many of these it takes, if it may take as many as that; `None`: it has closed its input.
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

    /// After how many milliseconds it says something again, if it is not waiting for its input, or for ever.
    pub(super) fn pause(&self) -> Option<u64> {
        let waits = !self.is_run || self.has_ended || (self.script.reads && !self.has_read_all);
        let hangs = self.left() == 0 && !self.script.ends;
        (!waits && !hangs).then_some(self.script.pause)
    }

    fn left(&self) -> usize {
        let echo = if self.script.echoes { self.read.len() } else { 0 };
        self.script.prints.len() + echo - self.printed
    }

    /// What it says then.
    pub(super) fn say(&mut self) -> Said {
        if self.left() == 0 {
            self.has_ended = true;
            return Said::End;
        }
        let echo = if self.script.echoes { self.read.as_slice() } else { &[] };
        let all = self.script.prints.iter().chain(echo);
        let bytes: Vec<u8> = all.skip(self.printed).take(self.script.piece).copied().collect();
        self.printed += bytes.len();
        Said::Bytes(bytes)
    }
}
