//! The rules of a server: every limit and every timeout, with its default and its consequence.

use crate::media_types::MediaTypes;

/// The protocol version of the answers (Python's `protocol_version`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `HTTP/1.0`: one exchange a connection, as Python does by default.
    Http10,
    /// `HTTP/1.1`: persistent connections. The default, since every answer here is framed.
    #[default]
    Http11,
}

/// Everything that a connection obeys and that is not a decision about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The version in status lines.
    pub protocol: Protocol,
    /// The name of the server, where a request names none (Python's `server_name`). Frontends fill in
    /// the address that they are bound to, if it is empty. Default: empty.
    pub server_name: String,
    /// The port of the server (Python's `server_port`). Frontends fill it in. Default 80.
    pub server_port: u16,
    /// Requests go to the handler, unless the policy says otherwise. Set where a handler is given.
    pub handled: bool,
    /// Scripts. Default: none.
    pub cgi: Cgi,
    /// Names that begin with a dot are neither served (404) nor listed. Default `false`, as Python.
    pub hide_dotfiles: bool,
    /// What entity tags are made of. Default: the time of modification and the length.
    pub etag: Etag,
    /// Media types and the charset of texts. Default: as the tables have them.
    pub types: MediaTypes,
    /// Where it is said whether the server is healthy: GET is answered `200` and `ok`, and `503` as soon as the server
    /// is about to leave ([`Input::Leave`](crate::Input::Leave)) or goes down. Nothing else is behind this path: no
    /// file, no handler, no script. It begins with `/`. A request may spell it otherwise (`/he%61lth`, `/./health`) and
    /// have a query; a slash at its end is another path. Default: none.
    pub health: Option<Box<str>>,
    /// Bounds on sizes.
    pub limits: Limits,
    /// Bounds on time.
    pub timeouts: Timeouts,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            protocol: Protocol::default(),
            server_name: String::new(),
            server_port: 80,
            handled: false,
            cgi: Cgi::default(),
            hide_dotfiles: false,
            etag: Etag::default(),
            types: MediaTypes::default(),
            health: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// What the entity tag of a file is made of (RFC 9110 section 8.8.3).
///
/// A time that packers write into every file for want of a better one says nothing of its content: the first day of
/// 1970 and before (Nix, Bazel, layers of containers), 1980-01-01T00:00:00Z (ZIP), 1980-02-01T00:00:00Z (Gradle),
/// 1985-10-26T08:15:00Z (npm). Such a file has neither `ETag` nor `Last-Modified`, unless its tag is made of its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Etag {
    /// The time of modification, to the nanosecond, and the length.
    #[default]
    Modified,
    /// A hash of the content, [`Opened::digest`](crate::Opened): for trees whose times mean nothing. There is no
    /// `Last-Modified` then, and where the hash is not known, no `ETag`.
    Content,
    /// There is no tag. `Last-Modified` stays.
    Off,
}

/// What runs as a script (RFC 3875).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgi {
    /// The directories whose files are scripts, as paths of targets without slash at the end (Python's
    /// `cgi_directories`); `/` is the whole root. Empty: there are no scripts.
    pub directories: Vec<String>,
    /// What becomes of a chunked request body, whose length a script must be told before it runs.
    pub chunked: Chunked,
    /// Scripts are told the field `Authorization`, as `HTTP_AUTHORIZATION`: those that verify passwords themselves
    /// need it, and everybody who may read their environment can read it then (RFC 3875 section 9.2). Default `false`.
    pub pass_authorization: bool,
}

impl Cgi {
    /// Python's directories, `/cgi-bin` and `/htbin`.
    #[must_use]
    pub fn python() -> Cgi {
        Cgi { directories: vec!["/cgi-bin".into(), "/htbin".into()], ..Cgi::default() }
    }
}

/// What becomes of a chunked request body that is meant for a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunked {
    /// It is kept in a temporary file until its length is known, within `limits.body`.
    #[default]
    Spool,
    /// 411.
    Refuse,
}

/// Bounds on what one connection may make the server hold. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The request line with its line end; longer: 414. Default 65,536, as Python.
    pub request_line: usize,
    /// One field line with its line end; longer: 431 `Line too long`. Default 65,536, as Python.
    pub field_line: usize,
    /// The number of field lines; more: 431 `Too many headers`. Default 99, as Python.
    pub fields: usize,
    /// The whole head; longer: 431. Default 131,072.
    pub head: usize,
    /// Empty lines before a request line that are passed over (RFC 9112 section 2.2); more: 400. Default 4.
    pub blank_lines: usize,
    /// A chunk-size line with its extensions; longer: 400. Default 1,024.
    pub chunk_line: usize,
    /// The trailer section of a chunked body; longer: 431. Default 8,192.
    pub trailers: usize,
    /// A request body; longer: 413. Default 1 GiB. Bodies stream: this is no memory.
    pub body: u64,
    /// How much of a body that nobody wants is read for the sake of the next exchange; where more
    /// would come, the connection closes. Of a script's output that is not sent (HEAD, 204, 304), as much is
    /// read and dropped; a script that goes on is ended. Default 65,536.
    pub drain: u64,
    /// How much a closing connection still reads, so that its last answer arrives. Default 1 GiB:
    /// time bounds it first, and nothing is kept.
    pub linger: u64,
    /// Memory for the entries of one directory listing: their names, and 8 bytes each; more: 500.
    /// Default 64 MiB.
    pub listing: usize,
    /// Output formatted ahead of the socket (pages, listings, handlers' bodies); at least 1. Default 65,536.
    pub output: usize,
    /// Parts of one `multipart/byteranges` answer; more, or more than four times as many ranges in the request,
    /// however they overlap: the whole representation. Default 256: zsync asks for 20, and others for 100.
    pub ranges: usize,
    /// The head of a script's answer; longer: 502. Default 65,536.
    pub script_head: usize,
    /// A request body with a length of so many bytes at most is read whole before a script is started for it; of a
    /// longer one, something has to have come. So a client that sends no body takes no script's place. At most
    /// [`head`](Limits::head) counts; 0: the script is started at once. Default 65,536.
    pub script_body: usize,
    /// Local redirects (RFC 3875 section 6.2.2) for one request; more: 502. Default 10.
    pub redirects: u8,
}

impl Limits {
    /// Without any room, no answer would ever go on.
    pub(crate) fn output_room(&self) -> usize {
        self.output.max(1)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_line: 65_536,
            field_line: 65_536,
            fields: 99,
            head: 131_072,
            blank_lines: 4,
            chunk_line: 1_024,
            trailers: 8_192,
            body: 1 << 30,
            drain: 65_536,
            linger: 1 << 30,
            listing: 64 << 20,
            output: 65_536,
            ranges: 256,
            script_head: 65_536,
            script_body: 65_536,
            redirects: 10,
        }
    }
}

/// Bounds on time, in milliseconds. `poll` fires them, on every runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a head to its end; 408 and close. It does not start anew with each
    /// byte, so a slow drip cannot stretch it. Default 20,000.
    pub head: u64,
    /// Without a byte between exchanges, and before the first; closes silently. Default 15,000.
    pub keep_alive: u64,
    /// The pace of a request body; 408 or cut. By default it may pause for more than a minute (65,000): an upload from
    /// a phone between two cells goes on after 55 seconds.
    pub body: Pace,
    /// The pace at which the peer takes what it asked for; cut. A driver sees it only in steps, as the
    /// peer's system opens its window again (some 64 KiB on loopback), so the timeout must not be short.
    pub write: Pace,
    /// Without a byte of a first request on a connection of a server that drains: how long a peer that has
    /// connected may take to ask for something; closes silently. A connection that had an answer closes at once.
    /// Also the whole time that a connection is still read which is closing. Default 1,000.
    pub drain_silence: u64,
    /// Silence of a peer whose connection is closing; close. Default 2,000.
    pub linger_silence: u64,
    /// The whole time that a closing connection is still read; close. Default 30,000.
    pub linger: u64,
    /// The whole time that a script may run; then SIGTERM, and 504 or cut. Default 300,000.
    pub script: u64,
    /// Between SIGTERM and SIGKILL. Default 2,000.
    pub script_grace: u64,
    /// How long a script may be silent for a peer that has half-closed a persistent connection, and may have
    /// gone away altogether: TCP does not tell which. Then it is ended, and the connection cut. Where the peer
    /// has said that this is its last request (`Connection: close`, or HTTP/1.0 without keep-alive), or has sent
    /// further requests, the script has its whole time. Default 2,000.
    pub script_silence: u64,
    /// How long a script may go on after the head of an answer to HEAD, of which nothing more is sent; then it
    /// is ended. Default 2,000.
    pub script_drain: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            head: 20_000,
            keep_alive: 15_000,
            body: Pace { silence: 65_000, grace: 65_000, rate: 256 },
            write: Pace { silence: 120_000, grace: 120_000, rate: 256 },
            drain_silence: 1_000,
            linger_silence: 2_000,
            linger: 30_000,
            script: 300_000,
            script_grace: 2_000,
            script_silence: 2_000,
            script_drain: 2_000,
        }
    }
}

/// How slow a peer may be: it may neither be silent for long nor slow for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Milliseconds without any progress.
    pub silence: u64,
    /// Milliseconds before the rate counts.
    pub grace: u64,
    /// Bytes a second that must be reached on average after the grace; 0: no minimum.
    pub rate: u64,
}
