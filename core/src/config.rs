//! The configuration of a connection: every limit and every timeout, with its default and its consequence. Decisions
//! about single requests are in [`Policy`](crate::Policy).

use std::sync::Arc;
use std::time::Duration;

use crate::media_types::MediaTypes;
use crate::rules::Rules;
use crate::time::millis;

/// Settings with public fields: the fields with their defaults, and the builder methods of most.
macro_rules! settings {
    (
        $(#[$meta:meta])* $settings:ident
        { $($(#[$of_field:meta])* $field:ident $($setter:ident)?: $type:ty = $default:expr;)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $settings { $($(#[$of_field])* pub $field: $type,)* }

        impl $settings {
            $($(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $setter(self, $field: $type) -> $settings {
                    $settings { $field, ..self }
                }
            )?)*
        }

        impl Default for $settings {
            fn default() -> $settings {
                $settings { $($field: $default,)* }
            }
        }
    };
}

/// The protocol version of responses (Python's `protocol_version`).
///
/// ```
/// use sanserve_core::{Config, Protocol};
///
/// // As Python's http.server does by default: one request for each connection.
/// let config = Config::default().with_protocol(Protocol::Http10);
/// # assert_eq!(config.protocol, Protocol::Http10);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `HTTP/1.0`: one exchange per connection, which is the default in Python.
    Http10,
    /// `HTTP/1.1`: persistent connections. The default, since every response is framed.
    #[default]
    Http11,
}

settings! {
    /// The configuration of a connection: everything that does not depend on a single request. Decisions about single
    /// requests are in [`Policy`](crate::Policy).
    ///
    /// More fields may be added, so start from the default:
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
    Config {
        /// The version in status lines.
        protocol with_protocol: Protocol = Protocol::default();
        /// The name of the server, for requests without a host (Python's `server_name`). If it is empty, frontends set it
        /// to the address that they are bound to. Default: empty.
        server_name: String = String::new();
        /// The port of the server (Python's `server_port`). Set by frontends. Default 80.
        server_port with_server_port: u16 = 80;
        /// Whether requests go to the handler, unless the policy decides otherwise. Set if there is a handler. Default
        /// `false`.
        handled with_handled: bool = false;
        /// Scripts. Default: none.
        cgi with_cgi: Cgi = Cgi::default();
        /// Whether names that begin with a dot are hidden: not served (404) and not listed. Default `false`, as in Python.
        hide_dotfiles with_hide_dotfiles: bool = false;
        /// What entity tags are made of. Default: modification time and length.
        etag with_etag: Etag = Etag::default();
        /// Media types and the charset of text. Default: the built-in tables.
        types with_types: MediaTypes = MediaTypes::default();
        /// The path of the health check: a GET of it returns `200` and `ok`, or `503` once the server is about to leave
        /// ([`Input::Leave`](crate::Input::Leave)) or is shutting down. No file, handler or script can have this path. It
        /// begins with `/`. Requests may use other spellings of it (`/he%61lth`, `/./health`) and add a query; with a slash
        /// at the end, it is a different path. Default: none.
        health: Option<Box<str>> = None;
        /// The rules of the site: fields, redirects, and what is served for a path that names no file. They need the
        /// feature `files`, without which they have no effect. Default: none.
        rules: Option<Arc<Rules>> = None;
        /// Limits on sizes.
        limits with_limits: Limits = Limits::default();
        /// Limits on time.
        timeouts with_timeouts: Timeouts = Timeouts::default();
    }
}

impl Config {
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

    /// Sets [`rules`](Self::rules).
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Config {
        // Without any, no response is looked at.
        let rules = Some(rules).filter(|rules| *rules != Rules::default());
        Config { rules: rules.map(Arc::new), ..self }
    }

    /// The rules, which are for what is served as files: without those, they are not compiled in.
    #[inline(always)]
    pub(crate) fn applied_rules(&self) -> Option<&Rules> {
        if cfg!(feature = "files") { self.rules.as_deref() } else { None }
    }
}

/// What the entity tag of a file is made of (RFC 9110 section 8.8.3).
///
/// A placeholder, which archivers and build tools write into every file, is not used as the modification time: the
/// first day of 1970 and earlier (Nix, Bazel, container layers), 1980-01-01T00:00:00Z (ZIP), 1980-02-01T00:00:00Z
/// (Gradle), 1985-10-26T08:15:00Z (npm). Such a file has neither `ETag` nor `Last-Modified`, unless its tag is made of
/// its content.
///
/// ```
/// use sanserve_core::{Config, Etag};
///
/// // Several machines serve copies of a tree that have different times.
/// let config = Config::default().with_etag(Etag::Content);
/// # assert_eq!(config.etag, Etag::Content);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Etag {
    /// The modification time, to the nanosecond, and the length.
    #[default]
    Modified,
    /// A hash of the content, [`Opened::digest`](crate::Opened). For directories whose modification times are
    /// placeholders. No `Last-Modified` is sent, and no `ETag` while the hash is not known.
    Content,
    /// No tag is sent, but `Last-Modified` is.
    Off,
}

settings! {
    /// Which files run as scripts (RFC 3875).
    ///
    /// ```
    /// use sanserve_core::{Cgi, Config};
    ///
    /// // What is executable in `/cgi-bin` runs as a script.
    /// let config = Config::default().with_cgi(Cgi::default().with_directories(["/cgi-bin"]));
    /// assert_eq!(config.cgi.directories, ["/cgi-bin"]);
    /// ```
    Cgi {
        /// The directories whose files are scripts, as paths without a slash at the end (Python's `cgi_directories`). `/`
        /// stands for the whole root. Default: empty, which means no scripts.
        directories: Vec<String> = Vec::new();
        /// What happens to a chunked request body. A script must be given the length before it runs.
        chunked with_chunked: Chunked = Chunked::default();
        /// Whether scripts receive the field `Authorization` as `HTTP_AUTHORIZATION`. Scripts that verify passwords
        /// themselves need it, but then everybody who may read their environment can read it (RFC 3875 section 9.2).
        /// Default `false`.
        pass_authorization with_pass_authorization: bool = false;
    }
}

impl Cgi {
    /// The directories that Python uses, `/cgi-bin` and `/htbin`.
    #[must_use]
    pub fn python() -> Cgi {
        Cgi::default().with_directories(["/cgi-bin", "/htbin"])
    }

    /// Sets [`directories`](Self::directories).
    #[must_use]
    pub fn with_directories(self, directories: impl IntoIterator<Item: Into<String>>) -> Cgi {
        Cgi { directories: directories.into_iter().map(Into::into).collect(), ..self }
    }
}

/// What happens to a chunked request body for a script.
///
/// ```
/// use sanserve_core::{Cgi, Chunked};
///
/// let cgi = Cgi::python().with_chunked(Chunked::Refuse); // 411
/// # assert_eq!(cgi.chunked, Chunked::Refuse);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunked {
    /// It is stored in a temporary file until its length is known; at most `limits.body` bytes.
    #[default]
    Spool,
    /// The request is refused with 411.
    Refuse,
}

settings! {
    /// Limits on what a connection may make the server hold. All sizes are in bytes.
    ///
    /// More limits may be added, so start from the default:
    ///
    /// ```
    /// use sanserve_core::Limits;
    ///
    /// let limits = Limits::default().with_head(16_384).with_body(10 << 20);
    /// assert_eq!((limits.head, limits.body), (16_384, 10_485_760));
    /// assert_eq!(limits.fields, 99);
    /// ```
    Limits {
        /// The request line with its line end; a longer one is refused with 414. Default 65,536, as in Python.
        request_line with_request_line: usize = 65_536;
        /// A field line with its line end; a longer one is refused with 431 `Line too long`. Default 65,536, as in Python.
        field_line with_field_line: usize = 65_536;
        /// The number of field lines; more are refused with 431 `Too many headers`. Default 99, as in Python.
        fields with_fields: usize = 99;
        /// The whole head; a longer one is refused with 431. Default 131,072.
        head with_head: usize = 131_072;
        /// Empty lines before a request line that are skipped (RFC 9112 section 2.2); more are refused with 400. Default 4.
        blank_lines with_blank_lines: usize = 4;
        /// A chunk-size line with its extensions; a longer one is refused with 400. Default 1,024.
        chunk_line with_chunk_line: usize = 1_024;
        /// The trailer section of a chunked body; a longer one is refused with 431. Default 8,192.
        trailers with_trailers: usize = 8_192;
        /// A request body; a longer one is refused with 413. Default 1 GiB. Bodies are streamed, so this is not memory.
        body with_body: u64 = 1 << 30;
        /// How much of an unused request body is read and discarded, so that the connection can continue; with a longer
        /// body, the connection closes. The same amount of a script's output is read and discarded if it is not sent (HEAD,
        /// 204, 304); a script that writes more is terminated. Default 65,536.
        drain with_drain: u64 = 65_536;
        /// How much is read from a closing connection, so that the last response arrives. Default 1 GiB: the timeouts
        /// usually expire first, and nothing is stored.
        linger with_linger: u64 = 1 << 30;
        /// Memory for the entries of a directory listing: their names, and 8 bytes for each; a larger directory is refused
        /// with 500. Default 64 MiB.
        listing with_listing: usize = 64 << 20;
        /// Output that is formatted ahead of the socket (pages, listings, bodies of handlers); at least 1. Default 65,536.
        output with_output: usize = 65_536;
        /// A file that is sent as the page of an error ([`Rules::with_error_page`]); if it is longer, the usual page is
        /// sent. Default 1 MiB.
        error_page with_error_page: u64 = 1 << 20;
        /// The number of parts of a `multipart/byteranges` response. If there are more, or if the request lists more than
        /// four times as many ranges, the whole representation is sent. Default 256: zsync requests 20 ranges, and other
        /// clients 100.
        ranges with_ranges: usize = 256;
        /// The head of a script's response; a longer one results in 502. Default 65,536.
        script_head with_script_head: usize = 65_536;
        /// A request body of at most this length is read completely before the script is started. For a longer one, the
        /// script is started once some of it has arrived. So a client that sends no body does not occupy a script. At most
        /// [`head`](Limits::head) is used; 0 starts scripts at once. Default 65,536.
        script_body with_script_body: usize = 65_536;
        /// The number of local redirects (RFC 3875 section 6.2.2) for one request; more result in 502. Default 10.
        redirects with_redirects: u8 = 10;
    }
}

impl Limits {
    /// Without any room for output, no response could make progress.
    pub(crate) fn output_room(&self) -> usize {
        self.output.max(1)
    }
}

/// Defines [`Timeouts`]. The fields are in milliseconds, so that nothing is converted while requests are served; the
/// methods use [`Duration`].
macro_rules! timeouts {
    (
        { $($(#[doc = $doc:literal])* $name:ident $setter:ident = $millis:literal;)* }
        { $($(#[doc = $pace_doc:literal])* $pace:ident $set_pace:ident = $default:expr;)* }
    ) => {
        /// Limits on time, with a resolution of one millisecond, which is also the minimum. `poll` applies them, so
        /// they are the same on every runtime.
        ///
        /// More timeouts may be added, so start from the default:
        ///
        /// ```
        /// use std::time::Duration;
        /// use sanserve_core::{Pace, Timeouts};
        ///
        /// let lenient = Pace::new(Duration::from_secs(600), Duration::from_secs(600), 0);
        /// let timeouts = Timeouts::default().with_head(Duration::from_secs(5)).with_body(lenient);
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
        /// From when a connection was accepted to the end of its TLS handshake; then it closes. While the server drains,
        /// it is `drain_silence` at most. Default 10 s.
        handshake with_handshake = 10_000;
        /// From the first byte of a head to its end; then 408, and the connection closes. Further bytes do not extend
        /// it. Default 20 s.
        head with_head = 20_000;
        /// Without a byte between exchanges, and before the first; then the connection closes without a response.
        /// Default 15 s.
        keep_alive with_keep_alive = 15_000;
        /// While the server drains: how long a new connection may take to send the first byte of a request; then it
        /// closes without a response. A connection that already had a response closes at once. This is also the total
        /// time that is spent on reading from a closing connection. Default 1 s.
        drain_silence with_drain_silence = 1_000;
        /// How long a closing connection may be without a byte from the peer; then it closes. Default 2 s.
        linger_silence with_linger_silence = 2_000;
        /// The total time that is spent on reading from a closing connection; then it closes. Default 30 s.
        linger with_linger = 30_000;
        /// The total time that a script may run; then it gets SIGTERM, and the response is 504, or is cut. Default 5
        /// minutes.
        script with_script = 300_000;
        /// The time between SIGTERM and SIGKILL. Default 2 s.
        script_grace with_script_grace = 2_000;
        /// How long a script may be without output if the peer has half-closed a persistent connection. The peer may
        /// have gone away altogether, which TCP cannot distinguish. Then the script is terminated, and the connection
        /// is cut. This does not apply if the peer has indicated that this is its last request (`Connection: close`, or
        /// HTTP/1.0 without keep-alive), or has sent further requests. Default 2 s.
        script_silence with_script_silence = 2_000;
        /// How long a script may continue after the head of a response to HEAD, of which nothing more is sent; then it
        /// is terminated. Default 2 s.
        script_drain with_script_drain = 2_000;
    }
    {
        /// The minimum pace of a request body; slower ones are refused with 408, or cut. Default: pauses of at most 65
        /// s, since the upload of a phone that changes cells may resume after 55 seconds, and 256 bytes per second
        /// after 65 s.
        body with_body = Pace { silence: 65_000, grace: 65_000, rate: 256 };
        /// The minimum pace at which the peer reads the response; if it is slower, the connection is cut. Drivers only
        /// see progress in steps, when the receive window of the peer opens again (some 64 KiB on loopback), so the
        /// timeout must not be short. Default: pauses of at most 120 s, and 256 bytes per second after 120 s.
        write with_write = Pace { silence: 120_000, grace: 120_000, rate: 256 };
    }
}

/// The minimum pace of a transfer: the peer must neither stall for long nor be slow forever.
///
/// ```
/// use std::time::Duration;
/// use sanserve_core::{Pace, Timeouts};
///
/// // The peer may stall for 30 seconds. After a minute, it must have sent 1,000 bytes for each second on average.
/// let pace = Pace::new(Duration::from_secs(30), Duration::from_secs(60), 1_000);
/// let timeouts = Timeouts::default().with_body(pace);
/// assert_eq!(timeouts.body(), pace);
/// ```
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
    /// A pace with at most `silence` without progress, and an average of at least `rate` bytes per second since the
    /// beginning once `grace` has passed; 0: no minimum. The resolution of the times is one millisecond.
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
