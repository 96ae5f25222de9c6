//! The rules of a server: every limit and every timeout, with its default and its consequence.

use std::time::Duration;

use crate::media_types::MediaTypes;
use crate::time::millis;

/// Builder methods for public fields.
macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty;)*) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $setter(self, $field: $type) -> Self {
                Self { $field, ..self }
            }
        )*
    };
}

/// The protocol version of the answers (Python's `protocol_version`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `HTTP/1.0`: one exchange a connection, as Python does by default.
    Http10,
    /// `HTTP/1.1`: persistent connections. The default, since every answer here is framed.
    #[default]
    Http11,
}

/// The configuration of a connection: what does not depend on a single request. Decisions about one request are a
/// [`Policy`](crate::Policy).
///
/// There will be more fields, so a configuration starts as the default one:
///
/// ```
/// use std::time::Duration;
/// use sanserve_core::{Config, Limits, Protocol, Timeouts};
///
/// let config = Config::default()
///     .with_protocol(Protocol::Http10)
///     .with_health("/up")
///     .with_limits(Limits::default().with_body(10 << 20))
///     .with_timeouts(Timeouts::default().with_keep_alive(Duration::from_secs(5)));
/// assert_eq!(config.limits.body, 10_485_760);
/// assert!(!config.hide_dotfiles);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

impl Config {
    setters! {
        with_protocol protocol: Protocol;
        with_server_port server_port: u16;
        with_handled handled: bool;
        with_cgi cgi: Cgi;
        with_hide_dotfiles hide_dotfiles: bool;
        with_etag etag: Etag;
        with_types types: MediaTypes;
        with_limits limits: Limits;
        with_timeouts timeouts: Timeouts;
    }

    /// Sets [`server_name`](Self::server_name).
    #[must_use]
    pub fn with_server_name(self, server_name: impl Into<String>) -> Config {
        Config { server_name: server_name.into(), ..self }
    }

    /// Sets the path of [`health`](Self::health). It begins with `/`.
    #[must_use]
    pub fn with_health(self, path: impl Into<Box<str>>) -> Config {
        Config { health: Some(path.into()), ..self }
    }
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
#[non_exhaustive]
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
        Cgi::default().with_directories(["/cgi-bin", "/htbin"])
    }

    setters! {
        with_chunked chunked: Chunked;
        with_pass_authorization pass_authorization: bool;
    }

    /// Sets [`directories`](Self::directories).
    #[must_use]
    pub fn with_directories(self, directories: impl IntoIterator<Item: Into<String>>) -> Cgi {
        Cgi { directories: directories.into_iter().map(Into::into).collect(), ..self }
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
///
/// There will be more of them, so limits start as the default ones:
///
/// ```
/// use sanserve_core::Limits;
///
/// let limits = Limits::default().with_head(16_384).with_body(10 << 20);
/// assert_eq!((limits.head, limits.body), (16_384, 10_485_760));
/// assert_eq!(limits.fields, 99);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    setters! {
        with_request_line request_line: usize;
        with_field_line field_line: usize;
        with_fields fields: usize;
        with_head head: usize;
        with_blank_lines blank_lines: usize;
        with_chunk_line chunk_line: usize;
        with_trailers trailers: usize;
        with_body body: u64;
        with_drain drain: u64;
        with_linger linger: u64;
        with_listing listing: usize;
        with_output output: usize;
        with_ranges ranges: usize;
        with_script_head script_head: usize;
        with_script_body script_body: usize;
        with_redirects redirects: u8;
    }

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

/// Defines [`Timeouts`]: the fields in milliseconds, so that nothing is converted while requests are served, and the
/// methods in [`Duration`].
macro_rules! timeouts {
    (
        { $($(#[doc = $doc:literal])* $name:ident $setter:ident = $millis:literal;)* }
        { $($(#[doc = $pace_doc:literal])* $pace:ident $set_pace:ident = $default:expr;)* }
    ) => {
        /// Bounds on time, to the millisecond: what is shorter counts as one. `poll` fires them, on every runtime.
        ///
        /// There will be more of them, so timeouts start as the default ones:
        ///
        /// ```
        /// use std::time::Duration;
        /// use sanserve_core::{Pace, Timeouts};
        ///
        /// let patient = Pace::new(Duration::from_secs(600), Duration::from_secs(600), 0);
        /// let timeouts = Timeouts::default().with_head(Duration::from_secs(5)).with_body(patient);
        /// assert_eq!(timeouts.head(), Duration::from_secs(5));
        /// assert_eq!(timeouts.keep_alive(), Duration::from_secs(15));
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Timeouts {
            $(pub(crate) $name: u64,)*
            $(pub(crate) $pace: Pace,)*
        }

        impl Default for Timeouts {
            fn default() -> Timeouts {
                Timeouts { $($name: $millis,)* $($pace: $default,)* }
            }
        }

        impl Timeouts {
            $(
                $(#[doc = $doc])*
                #[must_use]
                pub fn $name(&self) -> Duration {
                    Duration::from_millis(self.$name)
                }

                #[doc = concat!("Sets [`", stringify!($name), "`](Self::", stringify!($name), ").")]
                #[must_use]
                pub fn $setter(self, $name: Duration) -> Timeouts {
                    Timeouts { $name: millis($name), ..self }
                }
            )*
            $(
                $(#[doc = $pace_doc])*
                #[must_use]
                pub fn $pace(&self) -> Pace {
                    self.$pace
                }

                #[doc = concat!("Sets [`", stringify!($pace), "`](Self::", stringify!($pace), ").")]
                #[must_use]
                pub fn $set_pace(self, $pace: Pace) -> Timeouts {
                    Timeouts { $pace, ..self }
                }
            )*
        }
    };
}

timeouts! {
    {
        /// From the first byte of a head to its end; then 408 and close. It does not start again with each
        /// byte, so a slow drip cannot stretch it. Default 20 s.
        head with_head = 20_000;
        /// Without a byte between exchanges, and before the first; then the connection closes silently. Default 15 s.
        keep_alive with_keep_alive = 15_000;
        /// While the server drains, without a byte of a first request: how long a peer that has
        /// connected may take to ask for something; then the connection closes silently. A connection that has had
        /// a response closes at once. Also the longest time that a closing connection is still read then.
        /// Default 1 s.
        drain_silence with_drain_silence = 1_000;
        /// Silence of a peer whose connection is closing; then it is closed. Default 2 s.
        linger_silence with_linger_silence = 2_000;
        /// The longest time that a closing connection is still read; then it is closed. Default 30 s.
        linger with_linger = 30_000;
        /// The longest time that a script may run; then SIGTERM, and 504 or the connection is cut. Default 5 minutes.
        script with_script = 300_000;
        /// Between SIGTERM and SIGKILL. Default 2 s.
        script_grace with_script_grace = 2_000;
        /// How long a script may be silent for a peer that has half-closed a persistent connection, and may have
        /// gone away altogether: TCP does not tell which. Then it is ended, and the connection cut. Where the peer
        /// has said that this is its last request (`Connection: close`, or HTTP/1.0 without keep-alive), or has sent
        /// further requests, the script has its whole time. Default 2 s.
        script_silence with_script_silence = 2_000;
        /// How long a script may go on after the head of a response to HEAD, of which nothing more is sent; then it
        /// is ended. Default 2 s.
        script_drain with_script_drain = 2_000;
    }
    {
        /// The pace of a request body; then 408, or the connection is cut. Default: a pause of 65 s, so that an upload
        /// from a phone between two cells goes on after 55 seconds, and 256 bytes a second after 65 s.
        body with_body = Pace { silence: 65_000, grace: 65_000, rate: 256 };
        /// The pace at which the peer takes what it asked for; then the connection is cut. A driver sees it only in
        /// steps, as the peer's system opens its window again (some 64 KiB on loopback), so the timeout must not be
        /// short. Default: a pause of 120 s, and 256 bytes a second after 120 s.
        write with_write = Pace { silence: 120_000, grace: 120_000, rate: 256 };
    }
}

/// How slow a peer may be: neither silent for long nor slow for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// In milliseconds.
    pub(crate) silence: u64,
    /// In milliseconds.
    pub(crate) grace: u64,
    pub(crate) rate: u64,
}

impl Pace {
    /// At most `silence` without any progress and, once `grace` has passed, at least `rate` bytes a second on average
    /// since the beginning; 0: no minimum. The times count to the millisecond.
    #[must_use]
    pub const fn new(silence: Duration, grace: Duration, rate: u64) -> Pace {
        Pace { silence: millis(silence), grace: millis(grace), rate }
    }

    /// Sets [`silence`](Self::silence).
    #[must_use]
    pub const fn with_silence(self, silence: Duration) -> Pace {
        Pace { silence: millis(silence), ..self }
    }

    /// Sets [`grace`](Self::grace).
    #[must_use]
    pub const fn with_grace(self, grace: Duration) -> Pace {
        Pace { grace: millis(grace), ..self }
    }

    /// Sets [`rate`](Self::rate).
    #[must_use]
    pub const fn with_rate(self, rate: u64) -> Pace {
        Pace { rate, ..self }
    }

    /// The longest time without any progress.
    #[must_use]
    pub const fn silence(&self) -> Duration {
        Duration::from_millis(self.silence)
    }

    /// The time before the rate counts.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        Duration::from_millis(self.grace)
    }

    /// Bytes a second that must be reached on average after the grace; 0: no minimum.
    #[must_use]
    pub const fn rate(&self) -> u64 {
        self.rate
    }
}
